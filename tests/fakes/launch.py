"""Starts a llama-server (fake or real) on a UNIX socket for a test, and always ends it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

DEADLINE = 20.0


class UnixConnection(http.client.HTTPConnection):
    """``http.client`` over a UNIX socket."""

    def __init__(self, path: str, timeout: float = DEADLINE) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Launched:
    """A started server: its process, its socket's path and its log file."""

    def __init__(self, process: subprocess.Popen[bytes], socket_path: str, log: Path) -> None:
        self.process = process
        self.socket = socket_path
        self.log = log

    def request(
        self, method: str, path: str, body: str | bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case names) and body of one exchange on its own connection."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def wait_listening(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
                return
            time.sleep(0.005)
        raise AssertionError(
            f"not listening, exit {self.process.poll()}: {self.log.read_text(errors='replace')[-2000:]}"
        )

    def wait_healthy(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/health")[0] == 200:
                    return
            time.sleep(0.005)
        raise AssertionError(
            f"not healthy, exit {self.process.poll()}: {self.log.read_text(errors='replace')[-2000:]}"
        )

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)


def start(
    binary: Path, arguments: Sequence[str], socket_path: str, log: Path, env: Mapping[str, str] = {}
) -> Launched:
    """Start ``binary`` in a process group of its own; its output goes to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binary), "--host", socket_path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **env},
            start_new_session=True,
        )
    return Launched(process, socket_path, log)


@contextlib.contextmanager
def launched(binary: Path, arguments: Sequence[str], faults: str = "") -> Iterator[Launched]:
    """A server that is listening inside the block and gone after it. The socket lies in a short folder of its own."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        server = start(binary, arguments, f"{folder}/s.sock", Path(folder) / "log", {"FAKE_LLAMA": faults})
        try:
            server.wait_listening()
            yield server
        finally:
            server.kill()
