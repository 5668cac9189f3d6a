"""What ``llama-fit-params`` prints: memory by device, or the options by which a model fits. Parsed, never passed on unread.

Source: tools/fit-params/fit-params.cpp and common/fit.cpp of llama.cpp b11434. With ``--fit-print on`` there is one line for each
device, ``CUDA0 4403 512 304`` (MiB of weights, context and compute, each rounded down), and one for ``Host``; without it one line
of options, ``-c 4096 -ngl 28 -ts 14,14 -ot "blk…=CPU"``.
"""

from __future__ import annotations

import re

import msgspec

MIB = 1024 * 1024
HOST = "Host"

_DEVICE = re.compile(r"^([\w:.\[\]-]+) (\d{1,9}) (\d{1,9}) (\d{1,9})\s*$", re.MULTILINE)
_OPTIONS = re.compile(
    r'^-c \d+ -ngl (?P<layers>-?\d{1,6})(?: -ts (?P<split>[\d,.]+))?(?: -ot "?(?P<overrides>[^"\s]*)"?)?\s*$',
    re.MULTILINE,
)
_ALL_LAYERS = 9999


class Device(msgspec.Struct, frozen=True):
    """Bytes that a child would take on one device."""

    weights: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.context + self.compute


class Options(msgspec.Struct, frozen=True):
    """``-ngl``, ``-ts`` and ``-ot`` as the tool says them; the last two may be empty. All layers are told as a large number."""

    layers: int
    split: str = ""
    overrides: str = ""


def parse_devices(output: str) -> dict[str, Device]:
    """Device → bytes, main memory as ``Host``; empty when the output says nothing of the kind."""
    found = {name: Device(*(_rounded_up(size) for size in sizes)) for name, *sizes in _DEVICE.findall(output)}
    return found if HOST in found else {}


def parse_options(output: str) -> Options | None:
    """The last line of options in the output; None when there is none."""
    found = list(_OPTIONS.finditer(output))
    if not found:
        return None
    layers = int(found[-1]["layers"])
    return Options(
        _ALL_LAYERS if layers < 0 else layers, found[-1]["split"] or "", found[-1]["overrides"] or ""
    )


def _rounded_up(size: str) -> int:
    """What was rounded down; nothing stays nothing."""
    return (int(size) + 1) * MIB if int(size) else 0
