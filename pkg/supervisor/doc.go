// Package supervisor decides what becomes of the app: what is started, what serves, and what has to go.
//
// # The story
//
// A generation is one run of the app. At most one is the candidate: it was started and has to prove itself. At
// most one is current: it serves. Any number are leaving: they were asked to drain and have until their
// deadline. A swap makes a candidate current, and the current one is not touched before that.
//
// With a check (-check) a candidate is starting before there is a process of the app: the first one of the generation
// is the check's, and the app is launched, as the same generation, when that has exited with 0.
//
// Between its fork and its exec a process runs crank's own code, and can hang: on a lease on the program, or on a file system that does
// not answer. The loop does not wait for it. The candidate is starting, and watchers and the caller are told so when the exec has
// succeeded; if it fails, they are told only that.
//
// A candidate proves that it is ready: it says READY=1, or, where crank was told so (Readiness), its exec succeeded, it
// was alive for long enough, or a probe of it succeeds. READY=1 in the story and the diagram stands for all of these.
// Where one serves already, both serve for a while, since some servers say that they are ready and fail right after.
// Then the candidate is current, the old one gets the stop signal, and the command is saved. Where none serves there is
// nobody to protect, and READY makes it current at once.
// Each generation also has a slot, the lowest number from 0 that no other one has, from its check until the last of its
// processes is gone: for ports and files that two generations cannot share, and that a growing number would exhaust.
// A candidate that fails in any way gets TERM and a few seconds; whoever asked for it is told at that moment
// and it is not tried again.
//
// One goroutine, Run's, owns all of this. It takes one event at a time, and at the end of each turn it
// publishes a snapshot, then the events, and only then it answers whoever asked: one who was told "ready"
// finds it so. Everybody else sends it a message or reads the snapshot.
//
//	                     ┌─────────── READY=1, none serves ────────────┐
//	     check, launch   │       READY=1             settled, or the   ▼
//	(swap) ─────────► starting ───────────► settling ───────────────► ready
//	   │                 │                     │    current one ended  │
//	   │                 │ not in time         │                       │
//	   │                 │ says it failed      │ says it failed        │ replaced
//	   │                 │ abort, -force       │ abort, -force         │ shutdown
//	   │                 │ shutdown            │ shutdown              │
//	   │                 ▼                     ▼                       ▼
//	   │             ───────────────────── stopping ─────────────────────
//	   │ cannot be                             │ all of its processes have ended;
//	   │ executed                              ▼ at the deadline: KILL, and it stays
//	   └───────────────────────────────────► exited
//
// The end of the main process leads from every state to exited, or to stopping while others are left of it.
// Every move goes through become, which panics on one that is not in the table legal.
//
// # The table
//
// What each event does in each situation. In "startup" crank starts its own first command; in "first" a generation was requested
// and is starting, and none serves; in "next" one is starting and one serves; "executing" is "next" until the exec is over, "checking" while the check runs; in
// "leaving" one serves and an older one drains; in "delay" crank was told to stop, and the current one serves on until
// -drain-delay is over; in "shutdown" it was asked to stop. Messages, limits and ends are those of the generation that
// gives the situation its name.
//
//	event         | idle    | startup | first   | next    | executing | checking | settling | ready     | leaving | delay     | shutdown
//	swap          | start   | busy    | busy    | busy    | busy      | busy     | busy     | start     | start   | refused   | refused
//	swap -force   | start   | replace | replace | replace | replace   | replace  | release  | start     | start   | refused   | refused
//	HUP           | ignored | later   | later   | later   | later     | later    | later    | start     | start   | dropped   | dropped
//	abort         | refused | fail    | fail    | fail    | fail      | fail     | release  | refused   | refused | refused   | refused
//	kill          | nobody  | pass on | pass on | pass on | pass on   | pass on  | pass on  | pass on   | pass on | pass on   | pass on
//	READY         | counted | current | current | settle  | counted   | counted  | counted  | counted   | counted | counted   | counted
//	probe good    | -       | current | current | settle  | -         | -        | -        | -         | -       | -         | -
//	probe bad     | -       | again   | again   | again   | -         | -        | -        | -         | -       | -         | -
//	probe never   | -       | end     | fail    | fail    | -         | -        | -        | -         | -       | -         | -
//	probe limit   | -       | kill it | kill it | kill it | -         | -        | -        | -         | -       | -         | -
//	alive over    | -       | current | current | settle  | -         | -        | -        | -         | -       | -         | -
//	failed        | counted | end     | fail    | fail    | counted   | fail     | fail     | status    | status  | status    | status
//	STOPPING      | counted | end     | fail    | fail    | counted   | fail     | fail     | not ready | counted | not ready | counted
//	STATUS        | counted | status  | status  | status  | counted   | status   | status   | status    | status  | status    | status
//	EXTEND        | counted | extend  | extend  | extend  | counted   | counted  | counted  | counted   | extend  | counted   | extend
//	MAINPID       | counted | main    | main    | main    | counted   | counted  | main     | main      | counted | main      | counted
//	RELOADING     | counted | -       | -       | -       | counted   | -        | reload   | reload    | counted | reload    | counted
//	reload over   | counted | current | current | settle  | counted   | counted  | reloaded | reloaded  | counted | reloaded  | counted
//	reload late   | -       | -       | -       | -       | -         | -        | overdue  | overdue   | -       | overdue   | -
//	WATCHDOG_USEC | counted | period  | period  | period  | counted   | period   | period   | period    | counted | period    | counted
//	ping          | counted | counted | counted | counted | counted   | counted  | alive    | alive     | counted | alive     | counted
//	no ping       | -       | -       | -       | -       | -         | -        | fail     | missed    | -       | missed    | -
//	trigger       | counted | counted | counted | counted | counted   | counted  | fail     | missed    | counted | missed    | counted
//	miss, swap    | counted | counted | counted | counted | counted   | counted  | fail     | start     | counted | missed    | counted
//	miss, exit    | counted | counted | counted | counted | counted   | counted  | fail     | exit      | counted | missed    | counted
//	start limit   | -       | end     | fail    | fail    | fail      | fail     | -        | -         | -       | -         | -
//	settle over   | -       | -       | -       | -       | -         | -        | current  | -         | -       | -         | -
//	stop limit    | -       | -       | -       | -       | -         | -        | -        | -         | kill    | -         | kill
//	delay over    | -       | -       | -       | -       | -         | -        | -        | -         | -       | stop      | -
//	exits 0       | reap    | end     | fail    | fail    | fail      | launch   | fail     | died      | exited  | stop      | exited
//	exits 3       | reap    | end     | fail    | fail    | fail      | fail     | fail     | died      | exited  | stop      | exited
//	is killed     | reap    | end     | fail    | fail    | fail      | fail     | fail     | died      | exited  | stop      | exited
//	leaves some   | reap    | others  | others  | others  | others    | others   | others   | others    | others  | others    | others
//	others go     | -       | exited  | exited  | exited  | exited    | exited   | exited   | exited    | exited  | exited    | exited
//	named ends    | -       | main    | main    | main    | -         | -        | main     | main      | stop    | main      | stop
//	current dies  | -       | -       | -       | wait    | wait      | wait     | promote  | died      | died    | stop      | -
//	TERM          | leave   | stop 1s | stop 1s | delay   | delay     | delay    | delay    | delay     | delay   | stop      | pass on
//	TERM twice    | leave   | stop 1s | stop 1s | stop    | stop      | stop     | stop     | stop      | stop    | stop      | pass on
//	USR1          | hold    | pass on | pass on | current | current   | current  | current  | current   | current | current   | pass on
//	executed      | -       | -       | -       | -       | go on     | -        | -        | -         | -       | -         | -
//	not executed  | -       | -       | -       | -       | fail      | -        | -        | -         | -       | -         | -
//	fork fails    | failed  | failed  | failed  | failed  | failed    | failed   | failed   | failed    | failed  | refused   | refused
//	exec fails    | failed  | failed  | failed  | failed  | failed    | failed   | failed   | failed    | failed  | refused   | refused
//	pause         | shift   | shift   | shift   | shift   | shift     | shift    | shift    | shift     | shift   | shift     | shift
//	backoff over  | start   | -       | -       | -       | -         | -        | -        | -         | -       | -         | -
//
// The rows:
//
//   - "swap" is a request; "HUP" a SIGHUP that means a swap; "kill" a request to signal generations. A request is
//     refused, whatever the situation, if its -pid or -generation is not the current one's, if it has nothing to
//     start or to go back to, or if -max-draining generations that served are still leaving: -force kills the
//     oldest of them instead.
//   - "READY" is the message, with nothing else to make a candidate ready. "probe good", "probe bad": the result of the
//     newest probe; "probe never": the candidate's numbers make no valid address to probe; "probe limit": a program that probes has not ended in time; "alive over": the time that a candidate
//     has to be alive. In these rows the message would only be counted.
//   - "failed" is X_CRANK_FAILED= or ERRNO=. "TERM" stands for the signals of -stop-on, and for a hang-up of the terminal;
//     "USR1" for all other signals but HUP, also for INT and QUIT where -stop-on does not have them.
//   - "EXTEND" is EXTEND_TIMEOUT_USEC=. "reload over" is RELOADING=1 and then READY=1; in "reload late" the READY=1 does
//     not come within -start.
//   - The watchdog runs from READY=1 on: "ping" is WATCHDOG=1, "no ping" a period
//     without, "trigger" WATCHDOG=trigger, a miss at once. The last two rows are any miss, with -watchdog swap and exit.
//   - In "checking" the main process is the check's, and that is what exits or is killed.
//   - In "executing" a main process that exits has executed its program, and one that is killed has not. "executed", "not executed": its
//     exec succeeds or fails.
//   - "leaves some": the main process ends and others stay; "others go": they end as well. "named ends": a main process that
//     MAINPID= has named ends while the launched one runs, which is the main process again; otherwise it is the end of the main process.
//   - "fork fails" is a request with -force for which no process can be created, "exec fails" one whose program cannot be executed.
//   - "pause": crank did not run for more than 3 seconds.
//   - The situation of "backoff over" in "idle" is the time between two automatic restarts.
//
// The cells:
//
//   - start: a candidate is started. busy, refused: the answer is a Refusal, and nothing changes.
//   - replace: the candidate fails as "replaced", then another starts. release: as fail, but nothing is wrong with
//     it and it has accepted connections: it gets the stop signal and the time to drain in full. With -force
//     another starts then.
//   - later: a flag is set, however many come; one swap begins when there is no candidate, and no more than
//     -max-draining generations. dropped: counted, since no swap begins any more. ignored: there is nothing to start.
//   - fail: the candidate is told TERM if it still runs, and killed after at most 5 s. Its asker is told. What it
//     means where none serves: a candidate that began while another served that died meanwhile: "died". Any other: crank waits.
//   - end: as fail, and crank ends with the exit code of its first start, whatever -restart says, and 1 instead of 0. Where that was
//     the saved command, the command line's own is started instead.
//   - launch: the check has passed, and the app is started. Its start limit begins now. What cannot be executed, the
//     check or the app, has failed.
//   - go on: the start is announced and the request is answered. If none serves, held signals are delivered. From now on the
//     candidate has to prove itself. The start limit continues; a candidate that only has to stay alive has one for its exec only.
//   - again: there is another probe after an interval. kill it: the probe, which then is a bad one.
//   - current: the candidate is current, the old one gets the stop signal (or: the signal goes to the current one).
//     settle: both serve. promote: it is current although it has not settled. wait: not ready, until the candidate
//     is current or has failed.
//   - died: with -restart never (or on-failure, and exit code 0) the shutdown begins, without a delay. Else
//     another one is started after 0.1 s, doubling to 30 s, ±20 %, from the beginning again for one that had served for 60 s.
//     It waits up to 1 s for leftover processes. They are killed then, and have up to 2 s to end.
//   - others: they get the stop signal once, and KILL at the generation's deadline; it is stopping until none is left.
//     The rest is as if it had left none. exited: the generation is gone. reap: an adopted process; counted.
//   - status: shown, no effect. counted: no effect, but a number to look at. not ready: the app said so itself.
//   - extend: the deadline is at least that much from now, and at most -max-extend later than it was at first. In
//     "shutdown" crank's own deadline goes with it. A candidate that has failed is not given more. Where there is no
//     limit, nothing.
//   - main: the process is the generation's main one from now on, if it is one of the generation's own: signals go to it, and its
//     end is the generation's, unless the launched one still runs. One that has ended already is ignored, else the message is counted.
//   - reload: the app loads its configuration anew, and stays ready; the limit is -start. One whose MONOTONIC_USEC is
//     not newer than the last one's is counted. reloaded: it is over. overdue: it is no longer waited for.
//   - period: a new one begins, of that length; with 0 there is no watchdog. alive: a new period begins, and one that
//     had missed its watchdog is ready again. missed: not ready, until it is alive. Where the cell is "start" a
//     candidate is started as well, if there is none, and again after each period that is missed too; its trigger is
//     "restart". exit: the shutdown begins, without a delay, and the exit code is not 0.
//   - stop, of a named one that has ended: the stop signal goes to the launched one, the main process again.
//   - delay: not ready; a starting candidate gets TERM and 1 s, everything else serves on. stop: all that serves
//     gets the stop signal. From then on there is one deadline, the largest -stop; leaving ones keep theirs if it is
//     earlier, and are not told again. stop 1s: a starting candidate has no more than that. leave: Run returns.
//   - pass on: the signal goes to the generation (in "shutdown" to the one that served last). hold: it is kept for
//     the next one, also if there is only a check, or a candidate that is not executed yet. kill: KILL to all of its processes. failed: the
//     outcome says that it cannot be executed.
//   - shift: all deadlines move by the pause. -: nothing happens; for a limit: it is not armed.
//
// # The end
//
// The shutdown beats everything. When no generation is left the adopted processes are asked to stop, within the
// same deadline, and Run returns the moment there is nothing to wait for: the exit code of the newest
// generation that was ever current, or of the newest one where none was; 128 and the number of the signal
// that ended it; 0 for a code in OKCodes; 1 instead of 0 where the first start ended before it was ready and nobody had asked for
// that, where the app sent that it had failed, or where crank ended because the app had missed its watchdog; 124 where the first start
// was not ready in time, 126 or 127 where it could not be executed or found. A candidate that needs no proof (Readiness.None) is ready
// from its exec on.
package supervisor
