"""GPU memory as the Linux kernel tells it: AMD's totals, and what a process holds on any GPU.

``/sys/class/kfd`` lists AMD's GPUs in the order in which ROCm numbers them, and holds by process; ``/sys/class/drm`` has their
memory; ``/proc/PID/fdinfo`` what a process holds through each open device (kernel documentation: drm-usage-stats, xe, amdgpu).
``root`` is where the file system begins; tests look at a made-up one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

ROOT = Path("/")

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_REGION = re.compile(
    r"drm-(?P<what>resident|memory|total)-(?P<region>(?:vram|local)\w*):\s*(?P<size>\d+)\s*(?P<unit>\w*)"
)
_PREFERENCE = (
    "resident",
    "memory",
    "total",
)  # newer kernels have resident; memory is amdgpu's older word for it


class AmdGpu(msgspec.Struct, frozen=True):
    """``address`` is ``0000:03:00.0``; ``total`` and ``free`` are bytes of its own memory; ``node`` the number KFD calls it by."""

    address: str
    total: int
    free: int
    unique: str = ""
    node: int = 0


def amd_gpus(root: Path = ROOT) -> tuple[AmdGpu, ...]:
    """All of them in ROCm's order: KFD's where it is loaded, else that of their PCI addresses."""
    cards = dict(_cards(root))
    ordered = [msgspec.structs.replace(cards.pop(address), unique=unique, node=node)
               for address, unique, node in _nodes(root) if address in cards]  # fmt: skip
    return tuple(ordered) if ordered else tuple(cards[address] for address in sorted(cards))


def held_on(pid: int, gpus: Iterable[AmdGpu] = (), root: Path = ROOT) -> dict[str, int]:
    """Bytes of GPU memory that ``pid`` holds, by PCI address; empty where the kernel does not tell, or may not tell us."""
    held = _by_fdinfo(root / f"proc/{pid}/fdinfo")
    for gpu in gpus:
        # memory that was allocated for computing is only in KFD's own account on older kernels
        computing = _number(root / f"sys/class/kfd/kfd/proc/{pid}/vram_{gpu.node}") if gpu.node else None
        if computing is not None:
            held[gpu.address] = max(computing, held.get(gpu.address, 0))
    return held


def _cards(root: Path) -> Iterator[tuple[str, AmdGpu]]:
    for file in sorted((root / "sys/class/drm").glob("card[0-9]*/device/mem_info_vram_total")):
        total, used = _number(file), _number(file.with_name("mem_info_vram_used"))
        if total is not None and used is not None:
            address = file.parent.resolve().name
            yield address, AmdGpu(address, total, max(0, total - used))


def _nodes(root: Path) -> Iterator[tuple[str, str, int]]:
    """Address, unique id and KFD's number of each node that computes on a GPU."""
    folder = root / "sys/class/kfd/kfd/topology/nodes"
    nodes = sorted(folder.glob("[0-9]*"), key=lambda node: int(node.name)) if folder.is_dir() else []
    for node in nodes:
        known = dict(line.split(None, 1) for line in _text(node / "properties").splitlines() if " " in line)
        minor, unique = known.get("drm_render_minor", "0").strip(), known.get("unique_id", "0").strip()
        if known.get("simd_count", "0").strip() != "0" and minor != "0":
            address = (root / f"sys/class/drm/renderD{minor}/device").resolve().name
            yield (
                address,
                f"GPU-{int(unique):016x}" if unique.isdigit() and int(unique) else "",
                _number(node / "gpu_id") or 0,
            )


def _by_fdinfo(folder: Path) -> dict[str, int]:
    """A client that is open several times is counted once."""
    clients: dict[tuple[str, str], int] = {}
    try:
        files = list(folder.iterdir())
    except OSError:
        return {}
    for file in files:
        text = _text(file)
        address = re.search(r"^drm-pdev:\s*(\S+)", text, re.MULTILINE)
        client = re.search(r"^drm-client-id:\s*(\S+)", text, re.MULTILINE)
        if address is not None:
            key = (address[1].lower(), client[1] if client else file.name)
            clients[key] = max(_own_memory(text), clients.get(key, 0))
    held: dict[str, int] = {}
    for (address_text, _), size in clients.items():
        held[address_text] = held.get(address_text, 0) + size
    return {address: size for address, size in held.items() if size}


def _own_memory(text: str) -> int:
    """All regions of a GPU's own memory, each by the best word the driver has for it."""
    found: dict[str, dict[str, int]] = {}
    for match in _REGION.finditer(text):
        size = int(match["size"]) * _UNITS.get(match["unit"], 1)
        found.setdefault(match["region"], {})[match["what"]] = size
    return sum(next(words[what] for what in _PREFERENCE if what in words) for words in found.values())


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""
