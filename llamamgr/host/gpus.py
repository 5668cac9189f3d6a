"""The GPUs of this machine as llama.cpp numbers them: what is free on each now, and who holds the rest.

llama.cpp calls NVIDIA's devices ``CUDA0`` … and AMD's ``ROCm0`` … in the order in which the environment shows them
(``CUDA_VISIBLE_DEVICES``, ``ROCR_VISIBLE_DEVICES``, ``HIP_VISIBLE_DEVICES``). CUDA's own order is by speed; engines run with
``CUDA_DEVICE_ORDER=PCI_BUS_ID``, so that a number means the same GPU to everybody. Devices that only the engine sees (Vulkan,
SYCL …) come from its own ``--list-devices``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from llamamgr.host.drm import ROOT, AmdGpu, amd_gpus, held_on
from llamamgr.host.nvidia import NvidiaGpu, nvidia_gpus

_MIB = 1024 * 1024
_LISTED = re.compile(r"(?P<name>[A-Za-z]+\d+): .*\((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)\s*\Z")
_UNIFIED = ("MTL", "Metal")  # its memory is main memory, and planned as such

_One = TypeVar("_One", NvidiaGpu, AmdGpu)


class Gpu(msgspec.Struct, frozen=True):
    """One device. ``total`` and ``free`` are bytes, ``held`` bytes by process id for those processes that were asked about or told.

    ``identity`` is what the vendor's ``*_VISIBLE_DEVICES`` takes for it, ``address`` its PCI address; "" where it is not known.
    """

    name: str
    total: int
    free: int
    identity: str = ""
    address: str = ""
    held: dict[int, int] = {}


def gpus(
    pids: Iterable[int] = (), *, root: Path = ROOT, environment: Mapping[str, str] | None = None
) -> dict[str, Gpu]:
    """Every GPU whose memory the system tells, by name; empty when there is none. Blocking, for milliseconds as a rule."""
    shown = os.environ if environment is None else environment
    return {gpu.name: gpu for gpu in (*_nvidia(shown), *_amd(tuple(pids), root, shown))}


def listed(lines: Iterable[str]) -> dict[str, Gpu]:
    """Devices of the lines below ``Available devices:``; those that tell no memory, or share the main memory, are left out."""
    found = [match for line in lines if (match := _LISTED.match(line.strip()))]
    return {
        match["name"]: Gpu(match["name"], int(match["total"]) * _MIB, int(match["free"]) * _MIB)
        for match in found
        if int(match["total"]) and not match["name"].startswith(_UNIFIED)
    }


def held_anywhere(pid: int, root: Path = ROOT) -> int:
    """Bytes of GPU memory that ``pid`` holds on devices of any maker whose driver is the kernel's own."""
    return sum(held_on(pid, (), root).values())


def _nvidia(environment: Mapping[str, str]) -> list[Gpu]:
    found = nvidia_gpus()
    uuids = [gpu.uuid for gpu in found]
    visible = _shown(found, uuids, environment.get("CUDA_VISIBLE_DEVICES"))
    return [
        Gpu(f"CUDA{number}", one.total, one.free, one.uuid, one.address, one.held)
        for number, (one, _) in enumerate(visible)
    ]


def _amd(pids: Sequence[int], root: Path, environment: Mapping[str, str]) -> list[Gpu]:
    """``ROCR_VISIBLE_DEVICES`` hides first; ``HIP_VISIBLE_DEVICES`` counts what that leaves; engines are told its numbers."""
    found = amd_gpus(root)
    left = [
        one
        for one, _ in _shown(found, [gpu.unique for gpu in found], environment.get("ROCR_VISIBLE_DEVICES"))
    ]
    hip = environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES"))
    visible = _shown(left, [gpu.unique for gpu in left], hip)
    held = {pid: held_on(pid, found, root) for pid in pids} if found else {}
    return [
        Gpu(
            f"ROCm{number}",
            one.total,
            one.free,
            str(place),
            one.address,
            {pid: by[one.address] for pid, by in held.items() if one.address in by},
        )
        for number, (one, place) in enumerate(visible)
    ]


def _shown(found: Sequence[_One], names: Sequence[str], shown: str | None) -> list[tuple[_One, int]]:
    """The GPUs that a ``*_VISIBLE_DEVICES`` shows, in its order, with their places before it.

    As the drivers read it: numbers, or enough of a UUID from its beginning; what follows a wrong entry is not seen.
    """
    if shown is None:
        return [(one, place) for place, one in enumerate(found)]
    visible = []
    for word in (part.strip() for part in shown.split(",")):
        if word.isdigit() and int(word) < len(found):
            place = int(word)
        elif (match := [i for i, name in enumerate(names) if word and name.startswith(word)]) and len(
            match
        ) == 1:
            place = match[0]
        else:
            break
        visible.append((found[place], place))
    return visible
