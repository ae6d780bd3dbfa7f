# asyncio's server as its documentation closes it: on TERM close, then wait_closed.
import asyncio
import os
import re
import signal
import socket

HELLO = f"hello from asyncio, generation {os.environ['CRANK_GENERATION']}\n".encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(HELLO), HELLO)


async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if length := re.search(r"(?im)^content-length: *(\d+)", head):
                await reader.readexactly(int(length[1]))
            if head.split()[1] == "/slow":
                await asyncio.sleep(1.5)
            writer.write(ANSWER)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    term = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, term.set)
    server = await asyncio.start_server(serve, sock=socket.socket(fileno=3))
    os.write(int(os.environ["NOTIFY_FD"]), b"READY=1")
    await term.wait()
    server.close()
    await server.wait_closed()


asyncio.run(main())
