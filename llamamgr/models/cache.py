"""What files said, remembered across processes: an SQLite file that may be lost or spoiled without harm."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from llamamgr.models.facts import FileFacts

_VERSION = 3  # raise it when the facts of an unchanged file would now be read differently
_WAIT = 2.0  # seconds for another process's write


class FactCache:
    """``load`` all, ``save`` what changed. Another process may do the same at any time; a fault empties the cache."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, FileFacts]:
        """Path → facts, of whatever can be read."""
        if not self._path.exists():
            return {}
        try:
            with self._open() as database:
                rows = database.execute("SELECT facts FROM files").fetchall()
            decoder = msgspec.msgpack.Decoder(FileFacts)
            return {facts.path: facts for facts in (decoder.decode(row[0]) for row in rows)}
        except sqlite3.OperationalError:
            return {}  # locked for too long or not readable: the headers are still there to be read
        except (sqlite3.DatabaseError, msgspec.DecodeError, TypeError):
            self._discard()
            return {}

    def save(self, changed: Iterable[FileFacts], gone: Iterable[str]) -> None:
        """Write ``changed`` and forget ``gone``; a disk that cannot take it is no fault of the caller."""
        rows = [(facts.path, msgspec.msgpack.encode(facts)) for facts in changed]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in gone])
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", rows)
        except (sqlite3.OperationalError, OSError, UnicodeEncodeError):
            pass  # remembering is a favour; the next process reads the headers again
        except sqlite3.DatabaseError:
            self._discard()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=_WAIT)) as database, database:
            if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                database.execute("BEGIN IMMEDIATE")
                database.execute("DROP TABLE IF EXISTS files")
                database.execute("CREATE TABLE files (path TEXT PRIMARY KEY, facts BLOB NOT NULL)")
                database.execute(f"PRAGMA user_version = {_VERSION}")
            yield database

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
