"""Stand-ins for llama-swap and Ollama, as much of each as the benchmark asks: what shows that it could run the real ones.

``install(folder)`` puts the programs ``llama-swap`` and ``ollama`` there.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def install(folder: Path) -> tuple[Path, Path]:
    made = []
    for name in ("llama-swap", "ollama"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        program.chmod(0o755)
        made.append(program)
    return made[0], made[1]


def llama_swap(argv: list[str]) -> None:
    """Answers on ``--listen`` itself; the configuration must name a model and a command with a port to be filled in."""
    given = dict(zip(argv[::2], argv[1::2], strict=True))
    ((name, model),) = json.loads(Path(given["--config"]).read_text())["models"].items()
    assert "${PORT}" in model["cmd"]
    from fast_upstream import serve

    host, _, port = given["--listen"].rpartition(":")
    asyncio.run(serve({"--host": host, "--port": port, "--alias": name}))


class Ollama(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    created = False

    def do_GET(self) -> None:
        self.answer(b'{"version":"0.0.0"}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/blobs/"):
            self.answer(b"")
        elif self.path == "/api/create":
            Ollama.created = bool(json.loads(body)["files"])
            self.answer(b'{"status":"success"}')
        else:
            assert Ollama.created
            self.chat(json.loads(body))

    def chat(self, asked: dict) -> None:
        last = b'{"message":{"content":""},"done":true}\n'
        if not asked["stream"]:
            self.answer(last)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = b'{"message":{"content":" one"},"done":false}\n'
        data = line * asked["options"]["num_predict"] + last
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    if sys.argv[1] == "llama-swap":
        llama_swap(sys.argv[2:])
    else:
        host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
        ThreadingHTTPServer((host, int(port)), Ollama).serve_forever()
