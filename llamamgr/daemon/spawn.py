"""Starting the daemon in the background for a command that needs it; two commands at once start one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from llamamgr.core.errors import DaemonUnreachableError, LlamamgrError, kind_of_exit
from llamamgr.daemon.client import Control
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths, ensure
from llamamgr.host.settings import OPTIONS

_START_SECONDS = 30.0
_STOP_SECONDS = 60.0
_TAIL_LINES = 4  # of a start that ended without an error of ours
NO_FLAGS: Mapping[str, str] = {}


def ensure_daemon(paths: Paths, flags: Mapping[str, str] = NO_FLAGS) -> Control:
    """A control client whose daemon answers; started (detached, log appended to ``paths.daemon_log``) when there is none.

    ``flags`` are settings by dotted key, as the command line of ``serve`` gives them. A daemon that refuses to start raises what
    ``serve`` would tell: the same kind of error, sentence and hint.
    """
    control = Control(paths)
    if control.ping():
        return control
    ensure(paths.run, private=True)
    ensure(paths.state, private=True)
    with locked(paths.run / "spawn.lock", "the daemon's start", wait=_START_SECONDS):
        if control.ping():
            return control
        print("Daemon not running, starting it automatically...", file=sys.stderr)  # noqa: T201 - the promised line
        said_before = paths.daemon_log.stat().st_size if paths.daemon_log.exists() else 0
        _wait_until_it_answers(control, _spawn(paths, flags), paths.daemon_log, said_before)
        print("Daemon started successfully, connecting...", file=sys.stderr)  # noqa: T201 - the promised line
    return control


def wait_until_gone(paths: Paths) -> None:
    """Return when no daemon of this home lives and all its children are gone; it holds its lock until then."""
    with locked(daemon_lock(paths), "the daemon's place", wait=_STOP_SECONDS):
        pass


def daemon_lock(paths: Paths) -> Path:
    """Held by the daemon for as long as it lives."""
    return paths.run / "daemon.lock"


def _spawn(paths: Paths, flags: Mapping[str, str]) -> subprocess.Popen[bytes]:
    said = [word for key, value in flags.items() for word in (OPTIONS[key], value)]
    log = os.open(paths.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "llamamgr", "serve", *said],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait_until_it_answers(
    control: Control, process: subprocess.Popen[bytes], log: Path, said_before: int
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if control.ping():
            return
        code = process.poll()
        if code is not None:
            raise _failure(code, log, said_before)
        time.sleep(0.01)
    raise DaemonUnreachableError(
        f"the daemon (pid {process.pid}) does not answer after {_START_SECONDS:g} s", f"its log: {log}"
    )


def _failure(code: int, log: Path, said_before: int) -> LlamamgrError:
    """The error with which this start ended; ``said_before`` are the bytes of the log that former ones wrote."""
    with log.open("rb") as file:
        file.seek(said_before)
        said = file.read().decode("utf-8", "replace")
    kind, (_, told, error) = kind_of_exit(code), f"\n{said}".rpartition("\nerror: ")
    if kind is not None and told:
        what, _, hint = error.strip().partition("\nhint: ")
        return kind(what, hint)
    tail = " | ".join(said.splitlines()[-_TAIL_LINES:]) or "it said nothing"
    return DaemonUnreachableError(
        f"the daemon ended at its start with code {code}: {tail}", f"its whole log: {log}"
    )
