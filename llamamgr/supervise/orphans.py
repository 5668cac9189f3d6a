"""The children file: what a killed daemon left running is found and reaped by the next one.

A child is named by pid *and* start time, so that a recycled pid is never touched; and it must still run the program that was
written down. What a child had started outlives it when the daemon is killed (the kernel ends children, not theirs): it is known
by its session and by a folder of this home in its environment. The file is rewritten on every start and exit, by rename.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import psutil

from llamamgr.host.files import replace_quickly
from llamamgr.host.running import environment_of, wait_until_ended, words_of

_TOLERANCE = 0.05  # seconds; psutil derives a start time from clock ticks


class Entry(msgspec.Struct, frozen=True):
    """One running child. ``started`` is its start time in seconds since the epoch, as the system tells it.

    ``config_home`` is the ``XDG_CONFIG_HOME`` it and all that it starts have, which no process of anybody else's has.
    """

    id: str
    pid: int
    started: float
    program: str
    socket: str
    model: str
    config_home: str = ""


class ChildrenFile:
    """The file at ``path``; a missing or broken one counts as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._save()

    def remove(self, child: str) -> None:
        if self._entries.pop(child, None) is not None:
            self._save()

    def reap(self) -> list[Entry]:
        """Kill what an earlier daemon left, remove its sockets, empty the file. Returns those of whom something still lived."""
        left = self._read()
        alive = [entry for entry in left if _same_process(entry)]
        ended = [process for entry in alive if (process := _process(entry.pid))]
        for entry in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(entry.pid, signal.SIGKILL)
        sessions = {entry.pid: entry for entry in left if entry.config_home and not _is_recycled(entry)}
        for process, entry in _members(sessions):
            with contextlib.suppress(psutil.Error):
                process.kill()
                ended.append(process)
                alive += [entry] if entry not in alive else []
        for entry in left:
            with contextlib.suppress(OSError):
                Path(entry.socket).unlink()
        wait_until_ended(ended, 5)
        self._entries = {}
        self._save()
        return alive

    def _read(self) -> list[Entry]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Entry])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return []

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            replace_quickly(self.path, msgspec.json.encode(list(self._entries.values())), 0o600)


def start_time(pid: int) -> float:
    """When the process started; 0.0 when it is gone already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _members(sessions: Mapping[int, Entry]) -> Iterator[tuple[psutil.Process, Entry]]:
    """The processes in the sessions that these entries led; only those that have the entry's folder in their environment."""
    for pid in psutil.pids() if sessions else ():  # not process_iter: it remembers what bore a pid before
        try:
            if (entry := sessions.get(os.getsid(pid))) is None:
                continue
            process = psutil.Process(pid)
            if environment_of(process).get("XDG_CONFIG_HOME") == entry.config_home:
                yield process, entry
        except (psutil.Error, OSError):
            continue


def _is_recycled(entry: Entry) -> bool:
    """The entry's pid is somebody else's now; a session keeps the number of its dead leader from being given away."""
    process = _process(entry.pid)
    try:
        return process is not None and abs(process.create_time() - entry.started) > _TOLERANCE
    except psutil.Error:
        return False


def _same_process(entry: Entry) -> bool:
    process = _process(entry.pid)
    if process is None:
        return False
    try:
        if (
            process.status() == psutil.STATUS_ZOMBIE
            or abs(process.create_time() - entry.started) > _TOLERANCE
        ):
            return False
        return entry.program in words_of(process)
    except psutil.Error:
        return False
