"""A child's output: never blocks the child, bounded in memory and on disk."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

_RING_LINES = 400
_RING_LINE_BYTES = 2_000
_FILE_BYTES = 4 * 1024 * 1024
_KEPT_FILES = 3


class LogSink:
    """Takes raw output; keeps the last lines in a ring and everything in a rotated 0600 file.

    A disk that is full or gone costs the file's content only: the ring goes on and the child never notices.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ring: deque[str] = deque(maxlen=_RING_LINES)
        self._rest = b""
        self._written = 0
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Take a piece of output, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._ring.append(line[:_RING_LINE_BYTES].decode("utf-8", "replace").rstrip("\r"))
        if len(self._rest) > _RING_LINE_BYTES:
            self._rest = self._rest[:_RING_LINE_BYTES]
        self._store(data)

    def tail(self, lines: int) -> list[str]:
        """The last whole and begun lines, oldest first."""
        begun = [self._rest.decode("utf-8", "replace")] if self._rest else []
        return [*self._ring, *begun][-lines:]

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._written = os.fstat(file).st_size
        except OSError:
            return -1
        return file

    def _store(self, data: bytes) -> None:
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            self._written += os.write(self._file, data)
        if self._written >= _FILE_BYTES:
            self._rotate()

    def _rotate(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            for number in range(_KEPT_FILES - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            self.path.replace(self._numbered(1))
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
