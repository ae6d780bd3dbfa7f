#!/usr/bin/env escript
%% A server on the listening socket that it inherits, which loses no request when it is stopped.
-mode(compile).
-export([init/1, handle_event/2, handle_call/2]).

main([]) ->
    ok = gen_event:swap_handler(erl_signal_server, {erl_signal_handler, []}, {?MODULE, self()}),
    %% Without {backlog, N} Erlang makes the shared queue 5 connections long.
    {ok, Listener} = gen_tcp:listen(0, [{fd, 3}, inet, {backlog, 1024}, binary, {packet, http_bin}, {active, false}]),
    Main = self(),
    Acceptor = spawn_link(fun() -> accept(Listener, Main) end),
    ready(os:getenv("NOTIFY_SOCKET")),
    wait(Acceptor, 0, running).

ready(false) -> ok;
ready(Path) ->
    {ok, Socket} = gen_udp:open(0, [local]),
    ok = gen_udp:send(Socket, {local, Path}, 0, <<"READY=1">>).

%% The listener must not be closed while gen_tcp:accept runs: it would close the connection that it has just accepted.
accept(Listener, Main) ->
    receive stop -> Main ! closed
    after 0 ->
        case gen_tcp:accept(Listener, 100) of
            {ok, Client} ->
                Main ! accepted,
                Pid = spawn(fun() -> receive go -> serve(Client, []) end, Main ! served end),
                ok = gen_tcp:controlling_process(Client, Pid),
                Pid ! go,
                accept(Listener, Main);
            {error, timeout} -> accept(Listener, Main)
        end
    end.

wait(_, 0, closed) -> ok;
wait(Acceptor, Open, State) ->
    receive
        accepted -> wait(Acceptor, Open + 1, State);
        served -> wait(Acceptor, Open - 1, State);
        stop -> Acceptor ! stop, wait(Acceptor, Open, State);
        closed -> wait(Acceptor, Open, closed)
    end.

%% One request a connection.
serve(Client, Path) ->
    case gen_tcp:recv(Client, 0) of
        {ok, {http_request, _, {abs_path, P}, _}} -> serve(Client, P);
        {ok, http_eoh} ->
            case Path of <<"/slow">> -> timer:sleep(2000); _ -> ok end,
            gen_tcp:send(Client, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nversion 1\n"),
            gen_tcp:close(Client);
        {ok, _} -> serve(Client, Path);
        {error, _} -> gen_tcp:close(Client)
    end.

%% The handler of signals.
init({Main, _}) -> {ok, Main}.
handle_event(sigterm, Main) -> Main ! stop, {ok, Main};
handle_event(_, Main) -> {ok, Main}.
handle_call(_, Main) -> {ok, ok, Main}.
