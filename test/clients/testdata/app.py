"""An app in Python that says READY in one of several ways: path, fd, systemd, sdnotify.

It serves one connection after the other: GET / is answered at once, GET /hold when the client has
sent one more byte. On TERM it finishes the one that it has, and accepts no more.
"""

import os
import select
import signal
import socket
import sys

VIA = sys.argv[1]
BODY = f"generation {os.environ['CRANK_GENERATION']}\n".encode()


def by_path(text):
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.connect(address)
        s.sendall(text.encode())


def by_fd(text):
    os.write(int(os.environ["NOTIFY_FD"]), text.encode())


def by_systemd(text):
    from systemd import daemon

    assert daemon.notify(text)


def by_sdnotify(text):
    import sdnotify

    sdnotify.SystemdNotifier(debug=True).notify(text)


def sockets():
    if VIA == "systemd":
        from systemd import daemon

        fds = daemon.listen_fds()
        assert all(daemon.is_socket(fd, listening=1) for fd in fds)
    else:
        assert os.environ["LISTEN_PID"] == str(os.getpid())
        fds = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    for fd in fds:
        s = socket.socket(fileno=fd)
        s.setblocking(False)
        yield s


def serve(conn):
    with conn:
        request = b""
        while b"\r\n\r\n" not in request:
            more = conn.recv(4096)
            if not more:
                return
            request += more
        conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        if request.startswith(b"GET /hold "):
            conn.recv(1)
        conn.sendall(BODY)


notify = {"path": by_path, "fd": by_fd, "systemd": by_systemd, "sdnotify": by_sdnotify}[VIA]
stop, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGTERM, lambda *_: None)
listeners = list(sockets())
notify(f"STATUS=serving {VIA}\nREADY=1")
while True:
    readable, _, _ = select.select([stop, *listeners], [], [])
    if stop in readable:
        break
    for listener in readable:
        try:
            conn, _ = listener.accept()
        except BlockingIOError:  # another generation has it
            continue
        serve(conn)
notify("STOPPING=1")
