"""``llamamgr logs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path


def logs(
    model: Annotated[
        str, typer.Argument(help="The model whose engine's log is shown; without one, the daemon's.")
    ] = "",
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added, until Ctrl-C.")
    ] = False,
) -> None:
    """Show the log of a model's engine, or the daemon's. Works while nothing runs, too."""
    path = _log_of(model)
    for line in _last_lines(path, lines):
        print(line)
    if follow:
        _follow(path)


def _log_of(model: str) -> Path:
    from llamamgr.core.errors import NotFoundError
    from llamamgr.core.names import ModelName
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    if not model:
        path = paths.daemon_log
    else:
        short = ModelName.parse(model).short
        found = {file.name.lower(): file for file in paths.child_logs.glob("*.log")}
        path = found.get(
            f"{short.replace('/', '_').replace(':', '_')}.log".lower(), paths.child_logs / "none"
        )
    if not path.is_file():
        what = f"model {model!r}" if model else "the daemon"
        raise NotFoundError(
            f"there is no log of {what} yet",
            "it is written when it first runs; `llamamgr ps` shows what runs",
        )
    return path


def _last_lines(path: Path, count: int) -> list[str]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 400 * max(count, 1) - 4096))
        text = file.read().decode("utf-8", "replace")
    return text.splitlines()[-count:] if count else []


def _follow(path: Path) -> None:
    """Print what is added; a rotated file is followed under its old name."""
    import time

    file = path.open("rb")
    file.seek(0, 2)
    while True:
        data = file.read()
        if data:
            print(data.decode("utf-8", "replace"), end="", flush=True)
            continue
        time.sleep(0.2)
        if path.exists() and path.stat().st_ino != _inode(file.fileno()):
            file.close()
            file = path.open("rb")


def _inode(descriptor: int) -> int:
    import os

    return os.fstat(descriptor).st_ino
