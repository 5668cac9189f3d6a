"""Statuses of a pull or a creation as a live bar or as lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llamamgr.cli.stage_progress import telling
from llamamgr.core.stages import Stage, Tell


def follow(statuses: Iterable[Mapping[str, Any]], *, quiet: bool = False) -> None:
    """Show statuses, as Ollama's API tells them, until they end."""
    if quiet:
        for _ in statuses:
            pass
        return
    with telling() as tell:
        for status in statuses:
            show(status, tell)


def show(status: Mapping[str, Any], tell: Tell) -> None:
    """Show one; a count of bytes has its size in the title."""
    from llamamgr.cli.output import human_size

    title, total = str(status.get("status", "")), int(status.get("total", 0))
    if total and title.startswith("pulling "):
        title = f"{title} ({human_size(total)})"
    if title != "success":
        tell(Stage(title, int(status.get("completed", 0)), total))
