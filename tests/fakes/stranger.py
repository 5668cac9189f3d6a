"""Run by an engine's wrapper: takes the port the engine was given and says that all is well. ``stranger.py LOG ARGV…``

Every path that was asked of it with POST is a line of LOG.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def serve(server: socket.socket, log: str) -> None:
    while True:
        peer, _ = server.accept()
        request = peer.recv(65536).decode("latin-1")
        if request.startswith("POST "):
            with Path(log).open("a") as lines:
                lines.write(request.split(" ")[1] + "\n")
        body = b'{"status":"ok"}'
        peer.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        peer.close()


def main(log: str, *argv: str) -> None:
    server = socket.create_server(("127.0.0.1", int(argv[argv.index("--port") + 1])))
    Path(log).touch()
    if os.fork() == 0:
        serve(server, log)


main(*sys.argv[1:])
