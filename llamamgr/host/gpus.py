"""How much memory the GPUs have, and how much of it a process holds, as far as the vendor's own tool or the kernel tells.

NVIDIA: ``nvidia-smi --query-gpu`` and ``--query-compute-apps``. AMD: ``mem_info_vram_*`` under ``/sys/class/drm``. Devices are
named as llama.cpp names them (``CUDA0``, ``ROCm0``).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

_MIB = 1024 * 1024
_DEADLINE = 5.0
_DRM = Path("/sys/class/drm")


class GpuMemory(msgspec.Struct, frozen=True):
    """Bytes of one device."""

    total: int
    free: int


def gpu_memory(drm: Path = _DRM) -> dict[str, GpuMemory]:
    """Every GPU whose memory can be told; empty when there is none."""
    return {**_nvidia(), **_amd(drm)}


def held_by(pid: int) -> int:
    """Bytes of GPU memory that ``pid`` holds on NVIDIA devices; 0 where the system does not tell."""
    rows = _query("--query-compute-apps=pid,used_memory")
    return sum(
        int(row[1]) * _MIB for row in rows if len(row) == 2 and row[0] == str(pid) and row[1].isdigit()
    )


def _nvidia() -> dict[str, GpuMemory]:
    rows = _query("--query-gpu=index,memory.total,memory.free")
    return {
        f"CUDA{index}": GpuMemory(int(total) * _MIB, int(free) * _MIB)
        for index, total, free in (row for row in rows if len(row) == 3)
        if total.isdigit() and free.isdigit()
    }


def _query(question: str) -> list[list[str]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, question, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
        if done.returncode == 0
        else []
    )


def _amd(drm: Path) -> dict[str, GpuMemory]:
    found: dict[str, GpuMemory] = {}
    for total_file in sorted(drm.glob("card[0-9]*/device/mem_info_vram_total")):
        try:
            total = int(total_file.read_text())
            used = int(total_file.with_name("mem_info_vram_used").read_text())
        except (OSError, ValueError):
            continue
        found[f"ROCm{len(found)}"] = GpuMemory(total, max(0, total - used))
    return found
