"""Where a child may live: which GPUs, how much on each, how much in main memory. Pure arithmetic over bytes.

Order of preference: one GPU that holds all of it (the emptiest first), all GPUs together, as much as they hold with the rest in
main memory, main memory alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llamamgr.plan.events import HOST, TIERS, Placement
from llamamgr.plan.memory import MIB, Shape
from llamamgr.plan.state import Room

PER_PROCESS = 400 * MIB  # a CUDA or HIP context, on each GPU a process uses
HOST_SIDE = 256 * MIB  # what a process wants of main memory when its model is on GPUs
_NEAR = 0.3  # an estimate may be wrong by this much of itself


class Known(msgspec.Struct, frozen=True):
    """What is known better than the estimate, by measuring or from the engine itself. Bytes, without the prompt cache.

    ``whole`` is what the child takes by device when all of it is on GPUs, ``alone`` what it takes in main memory alone (0 = not
    known), ``partly`` where it may live when the GPUs cannot hold it.
    """

    whole: dict[str, int] = {}
    alone: int = 0
    partly: Placement | None = None


NOTHING = Known()


def better(measured: Known, said: Known) -> Known:
    """What was measured comes before what the engine expects."""
    return Known(measured.whole or said.whole, measured.alone or said.alone, said.partly)


def placements(
    shape: Shape,
    gpus: Mapping[str, int],
    *,
    on_gpu: bool = True,
    known: Known = NOTHING,
    left: Mapping[str, int] | None = None,
) -> tuple[Placement, ...]:
    """Candidates for ``shape``, best first. ``gpus`` are the bytes that children may take on each in all, ``left`` those of now."""
    cache = shape.prompt_cache_mib * MIB
    alone = known.alone + cache if known.alone else shape.need
    if not gpus or not on_gpu:
        return (Placement({HOST: alone}, tier="host" if gpus else "gpu"),)
    whole = _on_gpus(known)
    offload = whole - len(_devices(known)) * PER_PROCESS if whole else shape.need - cache
    host = known.whole.get(HOST, HOST_SIDE) + cache
    now = {name: max(0, (left or gpus).get(name, 0)) for name in gpus}
    by_size = sorted(gpus, key=lambda name: (-now[name], -gpus[name], name))
    found = [Placement({name: offload + PER_PROCESS, HOST: host}, (name,)) for name in by_size]
    if len(gpus) > 1:
        found.append(_split(offload, host, gpus, known))
        if now != gpus and any(now.values()):
            found.append(_shared(offload, host, now))
    found.append(known.partly or _overflowing(offload, host, gpus))
    found.append(Placement({HOST: alone + HOST_SIDE}, tier="host"))
    return tuple(found)


def best_tier(places: Sequence[Placement], room: Room) -> list[Placement]:
    """Those of the best tier that ``room`` could hold; all when it could hold none."""
    for tier in TIERS:
        fitting = [place for place in places if place.tier == tier and not room.short_of(place)]
        if fitting:
            return fitting
    return list(places)


def is_open(need: int, limits: Iterable[int]) -> bool:
    """``need``, an estimate, is so near to one of ``limits`` that a better figure may change what fits; or beyond all of them."""
    sizes = list(limits)
    near = any(abs(need - size) <= need * _NEAR for size in sizes)
    return near or need > max(sizes, default=0)


def _devices(known: Known) -> list[str]:
    return [device for device in known.whole if device != HOST]


def _on_gpus(known: Known) -> int:
    return sum(known.whole[device] for device in _devices(known))


def _split(offload: int, host: int, gpus: Mapping[str, int], known: Known) -> Placement:
    """Over all GPUs: as it was before, else in proportion to what they hold."""
    if set(_devices(known)) == set(gpus):
        return Placement(
            {**{name: known.whole[name] for name in gpus}, HOST: host},
            tuple(gpus),
        )
    return _shared(offload, host, gpus)


def _shared(offload: int, host: int, sizes: Mapping[str, int]) -> Placement:
    total = sum(sizes.values()) or 1
    shares = {name: offload * size // total + PER_PROCESS for name, size in sizes.items() if size}
    return Placement({**shares, HOST: host}, tuple(shares))


def _overflowing(offload: int, host: int, gpus: Mapping[str, int]) -> Placement:
    """What the GPUs hold there, the rest in main memory: the engine's own fitting moves layers."""
    held = {name: max(0, size - PER_PROCESS) for name, size in gpus.items()}
    rest = max(0, offload - sum(held.values()))
    return Placement(
        {**{name: max(0, gpus[name]) for name in gpus}, HOST: host + rest}, tuple(gpus), "partly"
    )


def shares(placement: Placement) -> str:
    """The engine's ``--tensor-split`` for a placement over several GPUs; "" when there is nothing to share out."""
    if len(placement.devices) < 2 or placement.tier != "gpu":
        return ""
    return ",".join(
        str(max(1, (placement.need.get(name, 0) - PER_PROCESS) // MIB)) for name in placement.devices
    )
