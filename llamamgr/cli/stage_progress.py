"""How long work shows what it is doing: a live bar on a terminal, plain lines anywhere else. Both on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from llamamgr.core.stages import Stage, Tell

_TENTH = 10  # percent between two plain lines of one stage


@contextlib.contextmanager
def telling() -> Iterator[Tell]:
    """What to hand to work as ``tell``, for as long as the block runs."""
    if sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield Lines().tell


def clock(seconds: float) -> str:
    """``4:48``, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Lines:
    """One line for each stage and each tenth of it, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = ("", -1)

    def tell(self, stage: Stage) -> None:
        if stage.note:
            self._print(stage.note)
            return
        tenth = stage.done * 100 // stage.total // _TENTH * _TENTH if stage.total else 0
        if (stage.title, tenth) != self._shown:
            self._shown = (stage.title, tenth)
            share = f" {tenth} %" if stage.total else ""
            self._print(stage.title + share + _count(stage))

    def _print(self, text: str) -> None:
        print(f"[{clock(time.monotonic() - self._began)}] {text}", file=sys.stderr, flush=True)


def _count(stage: Stage) -> str:
    return f" ({stage.done}/{stage.total})" if stage.counted and stage.total else ""


@contextlib.contextmanager
def _bar() -> Iterator[Tell]:
    """Title, bar, percent, count, time gone and time left; a stage that is over stays on the screen as a line."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False, markup=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]}"),
    )
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as live:
        task = live.add_task("", total=None, visible=False, count="")

        def tell(stage: Stage) -> None:
            if stage.note:
                console.print(stage.note)
                return
            former = live.tasks[0].description
            if former != stage.title:
                if former:
                    console.print(f"{former} ✓")
                live.reset(task, description=stage.title, total=None, visible=True, count="")
            if stage.total:
                live.update(task, completed=stage.done, total=stage.total, count=_count(stage))

        yield tell
