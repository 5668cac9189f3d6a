"""One blob over the network: resumed where it stopped, hashed as it comes, and made visible when it is right."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from llamamgr.core.errors import SourceUnreachableError, UsageError
from llamamgr.host.files import discard, disk_full_as_error
from llamamgr.host.registry import CutError, Registry
from llamamgr.models.store import Store

_FLUSH = 1024 * 1024  # bytes gathered before they are hashed and written
_FRUITLESS = 5  # connections in a row that may bring nothing


async def fill(
    partial: Partial, remote: Registry, url: str, size: int, report: Callable[[int], None]
) -> None:
    """Bring ``partial`` to ``size`` bytes, over as many connections as it takes while each brings something.

    ``report`` is told the bytes that are there. Errors as ``Registry.stream``; ``SourceUnreachableError`` when it gets no further.
    """
    fruitless = 0
    while partial.size < size:
        before = partial.size
        try:
            await _receive(partial, remote, url, size, report)
            why = "it ended too soon"
        except CutError as error:
            why = str(error)
        if partial.size >= size:
            return
        fruitless = 0 if partial.size > before else fruitless + 1
        if fruitless >= _FRUITLESS:
            raise SourceUnreachableError(
                f"the download stopped at {partial.size:,} of {size:,} bytes: {why}",
                "run the command again: it goes on from there",
            )
        await asyncio.sleep(0.1 * 2**fruitless)


async def _receive(
    partial: Partial, remote: Registry, url: str, size: int, report: Callable[[int], None]
) -> None:
    """One connection's worth."""
    gathered: list[bytes] = []
    count = 0

    async def flush() -> None:
        nonlocal count
        if gathered:
            data, count = b"".join(gathered), 0
            gathered.clear()
            await asyncio.to_thread(partial.write, data)
            report(partial.size)

    is_first = True
    try:
        async with aclosing(remote.stream(url, partial.size)) as pieces:
            async for piece in pieces:
                if is_first and piece.offset != partial.size:
                    await asyncio.to_thread(partial.restart)
                    if piece.offset:
                        raise CutError("the server sent another part than was asked for")
                is_first = False
                if partial.size + count + len(piece.data) > size:
                    gathered.clear()
                    await asyncio.to_thread(partial.restart)
                    raise UsageError(
                        f"the server sends more than the {size:,} bytes it told of", "try again later"
                    )
                gathered.append(piece.data)
                count += len(piece.data)
                if count >= _FLUSH:
                    await flush()
    finally:
        await flush()


class Partial:
    """A blob under way on disk. Blocking."""

    def __init__(self, blob: Path) -> None:
        self._path = blob.with_name(f"{blob.name}-partial")
        self._hash = hashlib.sha256()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        self.size = 0

    def take_up(self, size: int) -> None:
        """Read what an earlier pull left, to know its hash so far; nothing is kept when it is longer than ``size``."""
        if size_of(self._path) > size:
            self.restart()
        with self._path.open("rb") as file:
            while data := file.read(_FLUSH * 4):
                self._hash.update(data)
                self.size += len(data)

    def write(self, data: bytes) -> None:
        with disk_full_as_error(self._path):
            self._file.write(data)
            self._file.flush()
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def finish(self, store: Store, expected: str) -> str:
        """Make it a blob. A wrong digest leaves nothing."""
        found = self._hash.hexdigest()
        if expected and found != expected:
            self.close()
            discard(self._path)
            raise UsageError(
                f"digest mismatch, file must be downloaded again: want sha256:{expected}, got sha256:{found}",
                "run the command again",
            )
        with disk_full_as_error(self._path):
            os.fsync(self._file.fileno())
        self.close()
        self._path.replace(store.blob(found))
        return found

    def close(self) -> None:
        self._file.close()


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
