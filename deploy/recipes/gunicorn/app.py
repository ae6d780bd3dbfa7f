import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)  # so that you can see it drain
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version 1\n"]
