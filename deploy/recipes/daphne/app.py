import asyncio
import os
import socket

from twisted.internet import reactor

from drain import Draining


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        s.send(text)


reactor.callWhenRunning(notify, b"READY=1")  # daphne has no lifespan; it listens by then


@Draining
async def app(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.sleep(2)  # so that you can see it drain
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"version 1\n"})
