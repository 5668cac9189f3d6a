"""Counts of bytes for people."""

from __future__ import annotations


def human_size(size: int) -> str:
    """Decimal units as Ollama shows them: ``1.8 MB``, ``4.7 GB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
