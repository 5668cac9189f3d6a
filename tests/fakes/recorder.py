"""Stands between llamamgr and an engine and writes down every byte the engine is sent. ``recorder.py LOG ENGINE ARGV…``"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def pump(source: socket.socket, target: socket.socket, log: str) -> None:
    try:
        while data := source.recv(65536):
            if log:
                with Path(log).open("ab") as record:
                    record.write(data)
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def connected(path: str) -> socket.socket:
    while True:
        engine = socket.socket(socket.AF_UNIX)
        try:
            engine.connect(path)
        except OSError:
            engine.close()
            time.sleep(0.005)
        else:
            return engine


def main(log: str, program: str, *argv: str) -> None:
    arguments = list(argv)
    at = arguments.index("--host") + 1
    path, arguments[at] = arguments[at], arguments[at].replace(".sock", "-engine.sock")
    engine = subprocess.Popen([program, *arguments])
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    threading.Thread(target=lambda: sys.exit(engine.wait()), daemon=True).start()
    while True:
        client, _ = server.accept()
        upstream = connected(arguments[at])
        threading.Thread(target=pump, args=(client, upstream, log), daemon=True).start()
        threading.Thread(target=pump, args=(upstream, client, ""), daemon=True).start()


main(*sys.argv[1:])
