"""An app in asyncio: its listeners are non-blocking, and every accept trusts in that.

It accepts in the event loop until there is nothing more (one that blocks stops everything, TERM
included), and drains on TERM: each connection gets one more answer, with Connection: close.
"""

import asyncio
import os
import signal
import socket

BODY = f"generation {os.environ['CRANK_GENERATION']} pid {os.getpid()}\n".encode()


def inherited():
    assert int(os.environ["LISTEN_PID"]) == os.getpid()
    for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        yield listener


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        address = os.environ["NOTIFY_SOCKET"]
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.send(text.encode())


class App:
    def __init__(self):
        self.draining = False
        self.connections = set()

    async def run(self):
        loop = asyncio.get_running_loop()
        term = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, term.set)
        listeners = list(inherited())
        for listener in listeners:
            loop.add_reader(listener, self.accept, listener)
        notify("READY=1")
        await term.wait()
        self.draining = True
        for listener in listeners:
            loop.remove_reader(listener)
            listener.close()
        while self.connections:
            await asyncio.wait(self.connections)

    # Not asyncio.Server: in Python 3.11 that loses connections accepted just before its close().
    def accept(self, listener):
        while True:
            try:
                conn, _ = listener.accept()
            except BlockingIOError:
                return
            conn.setblocking(False)
            task = asyncio.create_task(self.serve(conn))
            self.connections.add(task)
            task.add_done_callback(self.connections.discard)

    async def serve(self, conn):
        reader, writer = await asyncio.open_connection(sock=conn)
        writer.transport.set_write_buffer_limits(0)  # drain waits until the kernel has it all
        try:
            while request := await self.request(reader):
                close = self.draining or b"connection: close" in request.lower()
                header = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(BODY)
                if close:
                    header += "Connection: close\r\n"
                writer.write(header.encode() + b"\r\n" + BODY)
                await writer.drain()
                if close:
                    return
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def request(self, reader):
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""


asyncio.run(App().run())
