"""Starting the daemon in the background for a command that needs it; two commands at once start one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from llamamgr.core.errors import DaemonUnreachableError
from llamamgr.daemon.client import Control
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths, ensure

_START_SECONDS = 30.0
_STOP_SECONDS = 60.0
_OPTIONS = {"server.host": "--host", "server.tls_cert": "--tls-cert", "server.tls_key": "--tls-key"}
NO_FLAGS: Mapping[str, str] = {}


def ensure_daemon(paths: Paths, flags: Mapping[str, str] = NO_FLAGS) -> Control:
    """A control client whose daemon answers; started (detached, log appended to ``paths.daemon_log``) when there is none.

    ``flags`` are settings by dotted key, as the command line of ``serve`` gives them.
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
        _wait_until_it_answers(control, _spawn(paths, flags), paths)
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
    said = [word for key, value in flags.items() for word in (_OPTIONS[key], value)]
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


def _wait_until_it_answers(control: Control, process: subprocess.Popen[bytes], paths: Paths) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if control.ping():
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    tail = paths.daemon_log.read_text("utf-8", "replace").splitlines()[-4:]
    raise DaemonUnreachableError(
        "the daemon did not start: " + " | ".join(tail), f"its whole log: {paths.daemon_log}"
    )
