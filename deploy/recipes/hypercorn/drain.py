"""Drains an ASGI server whose own way loses requests, for servers that run on an asyncio loop in one process."""

import asyncio
import os
import signal
import socket

QUIET = 1.0  # seconds to read what was accepted last, and to answer once more on connections that are kept alive


class Draining:
    """An app in front of the app. USR1 drains and then ends the server with TERM, which finds nothing to cut off."""

    def __init__(self, app):
        self.app, self.loop, self.draining, self.under_way = app, None, False, 0
        signal.signal(signal.SIGUSR1, self.asked)

    async def __call__(self, scope, receive, send):
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def closing(message):
            if self.draining and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        self.under_way += 1
        try:
            await self.app(scope, receive, closing)
        finally:
            self.under_way -= 1

    def asked(self, *_):
        if self.loop is None:
            os.kill(os.getpid(), signal.SIGTERM)  # nothing was ever asked
        elif not self.draining:
            self.draining = True
            self.loop.call_soon_threadsafe(self.drain)

    def drain(self):
        for fd in listeners():
            self.loop.remove_reader(fd)
        self.loop.call_later(QUIET, self.end)

    def end(self):
        if self.under_way:
            self.loop.call_later(0.1, self.end)
        else:
            os.kill(os.getpid(), signal.SIGTERM)


def listeners():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as s:
                if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield fd
        except OSError:
            pass  # no socket
