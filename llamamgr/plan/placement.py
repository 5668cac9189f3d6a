"""Where a child may live: which GPUs, how much on each, how much in main memory. Pure arithmetic over free bytes.

Order of preference: one GPU that holds all of it (the emptiest first), all GPUs together, as much as they hold with the rest in
main memory, main memory alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import MIB, Shape

_PER_PROCESS = 400 * MIB  # a CUDA or HIP context, on each GPU a process uses
_HOST_SIDE = 256 * MIB


def placements(shape: Shape, gpus: Mapping[str, int], *, on_gpu: bool = True) -> tuple[Placement, ...]:
    """Candidates for ``shape``, best first. ``gpus`` maps device names to the bytes that children may take there in all."""
    whole = shape.need
    if not gpus or not on_gpu:
        return (Placement({HOST: whole}),)
    host = _HOST_SIDE + shape.prompt_cache_mib * MIB
    offload = max(0, whole - shape.prompt_cache_mib * MIB)
    by_size = sorted(gpus, key=lambda name: (-gpus[name], name))
    found = [Placement({name: offload + _PER_PROCESS, HOST: host}, (name,)) for name in by_size]
    if len(gpus) > 1:
        found.append(_split(offload, host, gpus))
    found.append(_overflowing(offload, host, gpus))
    found.append(Placement({HOST: whole + host}))
    return tuple(found)


def _split(offload: int, host: int, gpus: Mapping[str, int]) -> Placement:
    """Over all GPUs in proportion to what they hold, as the engine's layer split does."""
    total = sum(gpus.values()) or 1
    shares = {name: offload * size // total + _PER_PROCESS for name, size in gpus.items()}
    return Placement({**shares, HOST: host}, tuple(gpus))


def _overflowing(offload: int, host: int, gpus: Mapping[str, int]) -> Placement:
    """What the GPUs hold there, the rest in main memory: the engine's own fitting moves layers."""
    held = {name: max(0, size - _PER_PROCESS) for name, size in gpus.items()}
    rest = max(0, offload - sum(held.values()))
    return Placement({**{name: gpus[name] for name in gpus}, HOST: host + rest}, tuple(gpus))
