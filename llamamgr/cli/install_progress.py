"""How ``llamamgr install`` shows what it is doing: a live bar on a terminal, plain lines anywhere else. Both on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamamgr.instances.build import Progress, Report, Step

_TITLES = {
    "source": "getting llama.cpp",
    "configure": "configuring",
    "build": "compiling",
    "install": "collecting",
    "verify": "verifying",
}
_INTERRUPTED = 130  # as shells count a SIGINT
_TENTH = 10  # percent between two plain lines of one step


@contextlib.contextmanager
def building(instance: str) -> Iterator[Report]:
    """As ``reporting``, for what leaves the instance as it was when it is interrupted: that is said, and exits with 130."""
    import typer

    from llamamgr.host.processes import terminate_as_interrupt

    try:
        with terminate_as_interrupt(), reporting() as report:
            yield report
    except KeyboardInterrupt:
        print(f"interrupted; instance {instance!r} is as it was", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


@contextlib.contextmanager
def reporting(first: Step = "source") -> Iterator[Report]:
    """What to hand to ``install`` as ``report``, for as long as the block runs; it begins with the step ``first``."""
    if sys.stderr.isatty():
        with _bar(first) as report:
            yield report
    else:
        yield Lines().report


def clock(seconds: float) -> str:
    """``4:48``, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Lines:
    """One line for each step and each tenth of the compilation, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = ("", -1)

    def report(self, progress: Progress) -> None:
        if progress.step == "note":
            self._print(progress.text)
            return
        tenth = progress.done * 100 // progress.total // _TENTH * _TENTH if progress.total else 0
        if (progress.step, tenth) != self._shown:
            self._shown = (progress.step, tenth)
            count = f" {tenth} % ({progress.done}/{progress.total})" if progress.total else ""
            self._print(_TITLES[progress.step] + count)

    def _print(self, text: str) -> None:
        print(f"[{clock(time.monotonic() - self._began)}] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(first: Step) -> Iterator[Report]:
    """Step, bar, count, time gone and time left; what is done stays on the screen as a line."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Live

    console = Console(stderr=True, highlight=False, markup=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Live(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as live:
        task = live.add_task(_TITLES[first], total=None)

        def report(progress: Progress) -> None:
            if progress.step == "note":
                console.print(progress.text)
                return
            title = _TITLES[progress.step]
            if live.tasks[0].description != title:
                console.print(f"{live.tasks[0].description} ✓")
                live.reset(task, description=title, total=None)
            if progress.total:
                live.update(task, completed=progress.done, total=progress.total)

        yield report
