"""What the scheduler is told (events, in the past tense) and what it orders (commands)."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

HOST = "host"  # the device name of main memory; GPUs are named as ``--list-devices`` names them
REPLACED = "its name is another file's now"  # a reason of ``KeySuperseded``


class Offload(msgspec.Struct, frozen=True):
    """How an engine spreads a model that GPUs cannot hold, in its own words: layers, shares of devices, tensors elsewhere."""

    layers: int
    split: str = ""
    overrides: str = ""


Tier = Literal["gpu", "partly", "host"]
TIERS: tuple[Tier, ...] = ("gpu", "partly", "host")


class Placement(msgspec.Struct, frozen=True):
    """Where a child may live and the bytes it takes there, by device. ``devices`` are the GPUs it is confined to (() = all).

    ``tier`` says how much of it is on GPUs; without GPUs to choose from that is ``gpu`` too, as there is nothing better.
    ``offload`` is how to spread it where that is known beforehand.
    """

    need: dict[str, int]
    devices: tuple[str, ...] = ()
    tier: Tier = "gpu"
    offload: Offload | None = None

    @property
    def total(self) -> int:
        return sum(self.need.values())

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that it takes memory of."""
        return tuple(device for device, size in self.need.items() if size and device != HOST)


class ChildKey(msgspec.Struct, frozen=True):
    """What makes two children the same: model (digest), build, other load options; and the context, which may be larger."""

    model: str
    build: str
    variant: str = ""
    context: int = 0

    @property
    def folder(self) -> str:
        """A file name for what is kept of children of this key: nothing in it is chosen by a client."""
        build = "".join(c if c.isalnum() or c in "-." else "_" for c in self.build)
        return f"{self.model}-{self.variant}-{self.context}-{build}"

    def serves(self, wanted: ChildKey) -> bool:
        """A running child of ``self`` can take a request for ``wanted`` without a reload."""
        return (
            self.model == wanted.model
            and self.context >= wanted.context
            and self.variant == wanted.variant
            and self.build == wanted.build
        )


class Limits(msgspec.Struct, frozen=True):
    """``patience`` is how long a demand lets warm children pass it, ``min_residency`` how long a child stays once it is ready;
    ``max_models`` 0 = as many as memory holds. ``memory_wait`` is when GPU memory that nobody reports as freed counts as free.
    """

    max_queue: int = 512
    max_models: int = 0
    queue_wait: float = 600.0
    patience: float = 10.0
    min_residency: float = 0.0
    memory_wait: float = 10.0
    crash_window: float = 60.0
    crashes_allowed: int = 3


# ---- events -----------------------------------------------------------------------------------------------------


class Requested(msgspec.Struct, frozen=True):
    """A request wants a child of ``key``.

    ``start_key`` is the key a newly started child would have (context ≥ wanted), ``placements`` where it may live, best first.
    A ``priority`` point weighs as much as ``PRIORITY_SECONDS`` of waiting. ``conflicts`` are models it cannot live beside,
    ``reload_seconds`` what bringing it back costs; a ``pinned`` child is never evicted and never expires. ``ttl`` is how long its
    child may stay idle whatever ``keep_alive`` says. Nobody makes way for what is ``modest``, and it does not wait for room.
    """

    request: int
    key: ChildKey
    placements: tuple[Placement, ...]
    slots: int
    keep_alive: float
    start_key: ChildKey | None = None
    priority: int = 0
    conflicts: frozenset[str] = frozenset()
    reload_seconds: float = 1.0
    pinned: bool = False
    ttl: float = math.inf
    modest: bool = False


class Left(msgspec.Struct, frozen=True):
    """A request is over: answered, failed, or its client went. Waiting demands and leases alike."""

    request: int


class ChildBecameReady(msgspec.Struct, frozen=True):
    child: str


class ChildLost(msgspec.Struct, frozen=True):
    """The process has ended and its owner is finding out why; ``ChildExited`` follows. Nothing is granted or started for it."""

    child: str


class ChildExited(msgspec.Struct, frozen=True):
    """The process is gone (or never came up); ``cause`` is for people."""

    child: str
    cause: str


class KeepAliveChanged(msgspec.Struct, frozen=True):
    """Children of ``model`` go ``keep_alive`` seconds after they are idle; 0 unloads now or after the last lease."""

    model: str
    keep_alive: float


class KeySuperseded(msgspec.Struct, frozen=True):
    """The child goes as soon as it is idle, and takes no new requests; ``reason`` is for people."""

    child: str
    reason: str = "its settings changed"


class TtlChanged(msgspec.Struct, frozen=True):
    """The child may stay idle for ``ttl`` seconds at most, whatever it was asked for."""

    child: str
    ttl: float


class UnloadForced(msgspec.Struct, frozen=True):
    """Children of ``model`` go now, whatever they are doing."""

    model: str


class MemoryFreed(msgspec.Struct, frozen=True):
    """What a child that is gone held on GPUs is free again, or was waited for long enough; answers ``AwaitMemory``."""

    child: str


class BudgetMeasured(msgspec.Struct, frozen=True):
    """Bytes that all children together may take, by device."""

    budget: dict[str, int]


class TimePassed(msgspec.Struct, frozen=True):
    """Nothing happened but time."""


Event = (
    Requested
    | Left
    | ChildBecameReady
    | ChildLost
    | ChildExited
    | KeepAliveChanged
    | KeySuperseded
    | TtlChanged
    | UnloadForced
    | MemoryFreed
    | BudgetMeasured
    | TimePassed
)


# ---- commands ---------------------------------------------------------------------------------------------------


class StartChild(msgspec.Struct, frozen=True):
    child: str
    key: ChildKey
    request: int
    placement: Placement


class StopChild(msgspec.Struct, frozen=True):
    child: str
    reason: str


class AwaitMemory(msgspec.Struct, frozen=True):
    """See to it that the GPUs of ``placement``, which ``child`` left, have its memory back: drivers free it late."""

    child: str
    placement: Placement


class GrantLease(msgspec.Struct, frozen=True):
    request: int
    child: str


Refusal = Literal["queue_full", "too_big", "no_room", "waited_too_long", "load_failed", "cooling_down"]


class RefuseRequest(msgspec.Struct, frozen=True):
    """``retry_after`` is whole seconds, 0 when trying again is no use."""

    request: int
    why: Refusal
    detail: str
    retry_after: int = 0


Command = StartChild | StopChild | AwaitMemory | GrantLease | RefuseRequest
