"""A release host on loopback: the releases API and the download server behind a redirect, with faults to switch on."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class ReleaseIndex:
    """Start with ``with``. ``cut`` connections are cut in the middle (-1 = all of them); ``lie`` gives a wrong digest, "" none."""

    def __init__(self) -> None:
        self.releases: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = 0
        self.lie: str | None = None
        self.resumes = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> ReleaseIndex:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def address(self) -> str:
        return f"{self.host}/repos/x/llama.cpp/releases"

    def add(self, tag: str, archives: dict[str, bytes], **fields: Any) -> None:
        """A release; the newest comes first, as in the real list."""
        assets = [self._asset(tag, name, data) for name, data in archives.items()]
        release = {"tag_name": tag, "draft": False, "prerelease": True, "assets": assets} | fields
        self.releases.insert(0, release)

    def _asset(self, tag: str, name: str, data: bytes) -> dict[str, Any]:
        self.files[name] = data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}" if self.lie is None else self.lie
        url = f"{self.host}/x/llama.cpp/releases/download/{tag}/{name}"
        return {"name": name, "size": len(data), "digest": digest or None, "browser_download_url": url}


def archived(folder: Path, to: Path, top: str) -> bytes:
    """The files of ``folder`` as an archive of the kind that ``to``'s name says, in a folder ``top``."""
    if to.suffix == ".zip":
        with zipfile.ZipFile(to, "w") as bundle:
            for path in sorted(folder.iterdir()):
                entry = zipfile.ZipInfo(f"{top}/{path.name}")
                is_link = path.is_symlink()
                entry.external_attr = (0o120777 if is_link else path.stat().st_mode) << 16
                bundle.writestr(entry, str(path.readlink()) if is_link else path.read_bytes())
    else:
        with tarfile.open(to, "w:gz") as tar:
            tar.add(folder, top)
    return to.read_bytes()


def _handler(index: ReleaseIndex) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            path = self.path.partition("?")[0]
            if path == "/repos/x/llama.cpp/releases":
                self._json(index.releases)
            elif match := re.fullmatch(r"/repos/x/llama\.cpp/releases/tags/(.+)", path):
                found = next((r for r in index.releases if r["tag_name"] == match[1]), None)
                self._json(found or {"message": "Not Found"}, 200 if found else 404)
            elif match := re.fullmatch(r"/x/llama\.cpp/releases/download/[^/]+/(.+)", path):
                self.send_response(302)
                self.send_header("Location", f"{index.host}/storage/{match[1]}")
                self.end_headers()
            elif path.startswith("/storage/"):
                self._file(index.files.get(path.rpartition("/")[2]))
            else:
                self._json({"message": "Not Found"}, 404)

        def _json(self, document: Any, status: int = 200) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _file(self, data: bytes | None) -> None:
            if data is None:
                self._json({"message": "gone"}, 404)
                return
            asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) if index.resumes else None
            rest = data[int(asked[1]) :] if asked else data
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if index.cut:
                index.cut -= 1
                rest = rest[: len(rest) // 2]
            self.wfile.write(rest)

        def log_message(self, *unused: object) -> None:
            pass

    return Handler
