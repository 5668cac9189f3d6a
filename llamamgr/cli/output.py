"""What commands print: plain tables and numbers for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import typer

from llamamgr.core.sizes import human_size

__all__ = ["harmless", "human_size", "print_json", "print_table"]

_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "?")


def harmless(text: str) -> str:
    """Text from a file or a server without what would steer the terminal."""
    return text.translate(_CONTROL)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, two spaces between, nothing after the last."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    for line in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_json(document: object) -> None:
    """One document, indented."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
