"""A Hugging Face hub as far as a download sees it: one repository's facts, its files by revision, and its refusals."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``folders`` (``org/name`` → folder) on loopback while the block runs; ``asked`` are the paths that were asked for."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            hub.asked.append(self.path)
            status, headers, body = self._content()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _content(self) -> tuple[int, dict[str, str], bytes]:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                return self._facts(found[1], found[2] or "main")
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self._file(found[1], found[3])
            return 404, {}, b""

        def _facts(self, name: str, revision: str) -> tuple[int, dict[str, str], bytes]:
            if name.startswith("gated/"):
                return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b"{}"
            if name.startswith("private/"):
                return 401, {"X-Error-Message": "Invalid username or password."}, b"{}"
            if name not in hub.folders:
                return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
            if revision not in ("main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}"
            files = sorted(path for path in hub.folders[name].rglob("*") if path.is_file())
            siblings = [
                {"rfilename": path.relative_to(hub.folders[name]).as_posix(), "size": path.stat().st_size}
                for path in files
            ]
            facts = {
                "id": name,
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()

        def _file(self, name: str, file: str) -> tuple[int, dict[str, str], bytes]:
            path = hub.folders.get(name, Path("/nowhere")) / file
            if not path.is_file():
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return (
                200,
                {"X-Repo-Commit": COMMIT, "ETag": etag, "Content-Type": "application/octet-stream"},
                content,
            )

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
