"""A registry on loopback that behaves as Ollama's (``/v2``) and Hugging Face's (``/api/models``, ``resolve``), faults included.

It is a real HTTP server: ranges, redirects to another host, the 401 with its token service, 404, 429 with Retry-After, answers
that are cut, too long, wrong, or slow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE = "application/vnd.ollama.image."
TOKEN = "a-token-for-you"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeRegistry(ThreadingHTTPServer):
    """What it holds and how it misbehaves; the fields may be changed while it runs.

    ``refusals`` are statuses for the next requests under a path's beginning; ``cuts`` is after how many bytes the next downloads
    end; ``requests`` are method, path and headers of all that was asked.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.refusals: dict[str, list[int]] = {}
        self.retry_after = "0"
        self.cuts: list[int] = []
        self.needs_token = False
        self.redirects_to = ""  # host of the content's own server
        self.ignores_range = False
        self.spoils = False
        self.pad = b""  # sent after the end of a blob
        self.hold: threading.Event | None = None  # a download stops in its middle until it is set
        self.held = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def add_blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add_model(self, name: str, tag: str, **layers: bytes | list[bytes]) -> bytes:
        """``library/tiny``, tag and content by kind (``model``, ``template``, ``params`` …); its manifest."""
        config = self._layer("application/vnd.docker.container.image.v1+json", b'{"model_format":"gguf"}')
        rows = [
            self._layer(IMAGE + kind, one)
            for kind, data in layers.items()
            for one in (data if isinstance(data, list) else [data])
        ]
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": rows},
            separators=(",", ":"),
        ).encode()
        self.manifests[name, tag] = manifest
        return manifest

    def _layer(self, kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{self.add_blob(data)}", "size": len(data)}

    def asked(self, part: str) -> list[dict[str, str]]:
        """The headers of every request whose path has ``part`` in it."""
        return [headers for _, path, headers in self.requests if part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRegistry

    def log_message(self, *args: Any) -> None:
        """Silence: tests read ``requests``."""

    def do_GET(self) -> None:
        fake = self.server
        fake.requests.append(("GET", self.path, {k.lower(): v for k, v in self.headers.items()}))
        for start, statuses in fake.refusals.items():
            if self.path.startswith(start) and statuses:
                return self._refuse(statuses.pop(0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        match parts:
            case ["token"]:
                query = parse_qs(urlsplit(self.path).query)
                good = query.get("service") == ["fake"] and "scope" in query
                return self._json({"token": TOKEN}) if good else self._refuse(400)
            case ["v2", namespace, model, kind, what]:
                return self._registry(f"{namespace}/{model}", kind, what)
            case ["cdn", digest]:
                return self._content(fake.blobs[digest])
            case ["api", "models", org, repo, "revision", revision]:
                return self._repository(f"{org}/{repo}", revision)
            case [org, repo, "resolve", _, *path]:
                return self._file(f"{org}/{repo}", "/".join(path))
            case _:
                return self._refuse(404)

    def _registry(self, name: str, kind: str, what: str) -> None:
        fake = self.server
        if fake.needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            scope = f"repository:{name}:pull"
            challenge = f'Bearer realm="{fake.url}/token",service="fake",scope="{scope}"'
            return self._refuse(401, {"WWW-Authenticate": challenge})
        if kind == "manifests":
            manifest = fake.manifests.get((name, what))
            return self._refuse(404) if manifest is None else self._send(200, manifest, MANIFEST)
        digest = what.removeprefix("sha256:")
        if digest not in fake.blobs:
            return self._refuse(404)
        if fake.redirects_to:
            return self._send(307, b"", headers={"Location": f"http://{fake.redirects_to}/cdn/{digest}"})
        return self._content(fake.blobs[digest])

    def _repository(self, name: str, revision: str) -> None:
        files = self.server.repositories.get(name)
        if files is None or revision not in ("main", "v1", COMMIT):
            return self._refuse(404)
        siblings = [
            {
                "rfilename": path,
                "size": len(data),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)},
            }
            if path.endswith(".gguf")
            else {"rfilename": path, "size": len(data)}
            for path, data in files.items()
        ]
        return self._json({"id": name, "sha": COMMIT, "siblings": siblings})

    def _file(self, name: str, path: str) -> None:
        data = self.server.repositories.get(name, {}).get(path)
        return self._refuse(404) if data is None else self._content(data)

    def _content(self, whole: bytes) -> None:
        fake = self.server
        start, status, headers = 0, 200, {"Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        if wanted and not fake.ignores_range:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(whole):
                self._refuse(416)
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        data = whole[start:]
        if fake.spoils:
            data = bytes(byte ^ 1 for byte in data)
        data += fake.pad
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        end = fake.cuts.pop(0) if fake.cuts else len(data)
        with contextlib.suppress(ConnectionError):
            if fake.hold is not None:
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                fake.held.set()
                fake.hold.wait(30)
                self.wfile.write(data[len(data) // 2 :])
            else:
                self.wfile.write(data[:end])
        if end < len(data):
            self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/json")

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        more = {"Retry-After": self.server.retry_after} if status == 429 else {}
        body = json.dumps({"errors": [{"code": "FAKE", "message": f"refused with {status}"}]}).encode()
        self._send(status, body, "application/json", {**(headers or {}), **more})

    def _send(
        self, status: int, body: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)


@contextlib.contextmanager
def running() -> Iterator[FakeRegistry]:
    """A registry for the block; its port and its threads are gone at the end."""
    with FakeRegistry() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            if fake.hold is not None:
                fake.hold.set()
            fake.shutdown()
            thread.join()
