"""A candidate whose readiness is broken in the way that its first argument says.

It ends by exit 8, which is "before ready" as long as nothing that was sent has made it ready, and
"while settling" where something has.
"""

import array
import os
import signal
import socket
import sys
import threading
import time

MODE, ARGS = sys.argv[1], sys.argv[2:]


def connected(address):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect("\0" + address[1:] if address.startswith("@") else address)
    return s


def own():
    return connected(os.environ["NOTIFY_SOCKET"])


def by_fd():
    return socket.socket(fileno=os.dup(int(os.environ["NOTIFY_FD"])))


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def dies():
    own().send(b"READY=1")


def garbage():
    nearly = [b"READY", b"READY=", b"READY=yes", b"READY=1 ", b" READY=1", b"ready=1", b"READY\r=1", b"READY=11", b"=1", b"READY:1",
              b"\0", b"\xff\xfe" * 1000, b"=\n" * 1000, b"STATUS=\xff\0\x1b[2J", b"EXTEND_TIMEOUT_USEC=-1", b"EXTEND_TIMEOUT_USEC=1e99",
              b"MAINPID=1", b"MAINPID=x", b"MAINPID=99999999999999999999", b"WATCHDOG_USEC=x", b"ERRNO=x", b"RELOADING=1"]
    for s in own(), by_fd():
        for message in nearly + [os.urandom(n) for n in range(0, 4000, 97)]:
            s.send(message)


def largest():
    """Each says READY, and is longer than what is read; some descriptors come along."""
    for s in own(), by_fd():
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        size, sent = 65 << 10, 0
        try:
            while True:
                message = b"READY=1\nSTATUS=".ljust(size, b"x")
                if s.family == socket.AF_UNIX and sent % 2:
                    s.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
                else:
                    s.send(message)
                size, sent = size + (16 << 10), sent + 1
        except OSError as err:  # EMSGSIZE: this is the end
            assert sent > 0, err


def flood():
    def send(s):
        for n in range(5000):
            s.send(b"STATUS=%d\nWATCHDOG=1" % n)

    threads = [threading.Thread(target=send, args=(open_(),)) for open_ in (own, by_fd) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def to_another():
    """Tell the generation that serves, by its own socket, that it has failed and stops."""
    with open(f"/proc/{ARGS[0]}/environ", "rb") as f:
        env = dict(entry.split(b"=", 1) for entry in f.read().split(b"\0") if b"=" in entry)
    s = connected(env[b"NOTIFY_SOCKET"].decode())
    for message in b"STOPPING=1", b"X_CRANK_FAILED=so says its enemy", b"ERRNO=5", b"WATCHDOG=trigger", b"MAINPID=%d" % os.getpid():
        s.send(message)
    barrier(s)


def barrier(s):
    """Wait until all is handled: who receives BARRIER=1 closes what came along (sd_notify_barrier(3))."""
    read, write = os.pipe()
    s.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write]))])
    os.close(write)
    os.read(read, 1)


def from_another():
    """Have a process of the generation that serves say READY in the place of this one."""
    with open("victim.new", "w") as f:
        f.write(os.environ["NOTIFY_SOCKET"])
    os.rename("victim.new", "victim")
    wait_for("sent")
    os.unlink("sent")


def friend():
    """The process that does it, for one after the other."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        wait_for("victim")
        with open("victim") as f:
            address = f.read()
        os.unlink("victim")
        connected(address).send(b"READY=1")
        open("sent", "w").close()


def dead():
    """The one who says READY is gone when it is read, or not yet."""
    pid = os.fork()
    if pid == 0:
        own().send(b"READY=1")
        os._exit(0)
    os.waitpid(pid, 0)


def unprivileged():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    dies()


globals()[MODE]()
os._exit(8)
