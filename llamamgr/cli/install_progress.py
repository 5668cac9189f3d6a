"""How ``llamamgr install`` shows what it is doing: its steps, as the stages of any long work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llamamgr.cli.stage_progress import telling
from llamamgr.core.stages import Stage

if TYPE_CHECKING:
    from llamamgr.instances.build import Progress, Report

_TITLES = {
    "source": "getting llama.cpp",
    "configure": "configuring",
    "build": "compiling",
    "install": "collecting",
    "verify": "verifying",
}
_INTERRUPTED = 130  # as shells count a SIGINT


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
def reporting() -> Iterator[Report]:
    """What to hand to ``install`` as ``report``, for as long as the block runs."""
    with telling() as tell:
        yield lambda progress: tell(_stage(progress))


def _stage(progress: Progress) -> Stage:
    if progress.step == "note":
        return Stage(note=progress.text)
    return Stage(_TITLES[progress.step], progress.done, progress.total, counted=progress.step == "build")
