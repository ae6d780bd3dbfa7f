import os
import signal
import socket
import sys
import time

from waitress import create_server


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version 1\n"]


server = create_server(app, sockets=[socket.socket(fileno=3)])
signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # run ends, and waits for what is being answered
os.write(int(os.environ["NOTIFY_FD"]), b"READY=1")
server.run()
