"""What commands print: plain tables and numbers for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import typer

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


def human_size(size: int) -> str:
    """Decimal units as Ollama shows them: ``1.8 MB``, ``4.7 GB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
