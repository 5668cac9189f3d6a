"""What the supervisor hands out: leases on children, and what there is to tell about children."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.supervise.tally import Tokens


class LoadOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Load-time wishes of a request; 0 or "" = the model's or engine's own choice. ``context`` is tokens per slot."""

    context: int = 0
    gpu_layers: int = -1
    batch: int = 0
    threads: int = 0
    main_gpu: int = -1
    use_mmap: bool | None = None
    instance: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a child answers: a UNIX socket path, or loopback host and port with a per-launch key."""

    socket: str = ""
    host: str = ""
    port: int = 0
    api_key: str = ""


class Lease(msgspec.Struct, frozen=True):
    """The right of one request to use one child, held until its last byte. ``tokens`` takes what the engine read and made."""

    child: str
    endpoint: Endpoint
    model: ModelCard
    build: Build
    context: int
    tokens: Tokens = msgspec.field(default_factory=Tokens)


class Builds(Protocol):
    """The builds there are, as the supervisor sees them."""

    def recall(self, instance: str = "") -> Build | None:
        """The build that ``instance`` ("" = the configured one) runs, from memory; None when the disk must be asked."""
        ...

    def __call__(self, instance: str = "") -> Build:
        """As ``recall``, from disk and off the loop; ``MissingToolError`` when there is none."""
        ...

    def former(self, build: Build) -> str:
        """Key of the build to go back to from ``build``; "" when there is none, or when ``build`` is not the current one."""
        ...

    def give_up(self, build: Build, reason: str) -> Build | None:
        """Go back from ``build``, which keeps crashing; the build that is current now, None when nothing changed."""
        ...


ChildState = Literal["loading", "ready", "lost", "stopping"]


class ChildStatus(msgspec.Struct, frozen=True):
    """One child as ``ps`` shows it. ``memory``, ``memory_gpu`` and ``memory_planned`` (what was reckoned with on all devices
    together) are bytes, ``expires`` seconds since the epoch (inf = never), ``tokens_per_second`` those of one answer, now or of
    the last ones (0.0 = not known).

    ``memory_gpu`` is measured where ``memory_devices`` tells it by GPU, else what the plan expects. ``planned`` is the estimate it
    was placed by: bytes by device. ``pid`` is 0 until the process is there.
    """

    id: str
    model: ModelCard
    build: str
    build_number: int
    state: ChildState
    pid: int
    context: int
    slots: int
    busy: int
    queued: int
    memory: int
    memory_gpu: int
    started: float
    expires: float
    devices: tuple[str, ...] = ()
    pinned: bool = False
    memory_devices: dict[str, int] = {}
    memory_planned: int = 0
    tokens_per_second: float = 0.0
    planned: dict[str, int] = {}


class ChildCrashedError(Exception):
    """The child behind a lease died. ``cause`` has its exit code or signal and the last log lines."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


NO_WISHES = LoadOptions()


class Children(Protocol):
    """The supervisor as the proxy sees it."""

    def acquire(
        self,
        model: ModelCard,
        options: LoadOptions = NO_WISHES,
        *,
        keep_alive: float | None = None,
        priority: int = 0,
    ) -> AbstractAsyncContextManager[Lease]:
        """Wait for a ready child of ``model`` and hold it. ``keep_alive`` is seconds it stays after this request (None = default),
        ``priority`` counts beside the model's own.

        Raises ``BusyError`` (queue full or wait too long), ``EngineError`` (load failed: exit code and log tail),
        ``MissingToolError`` (no build installed), ``DeadlineError`` (load too slow).
        """
        ...

    async def unload(self, model: ModelCard, *, now: bool = False) -> bool:
        """Stop every child of ``model`` once its requests are done, or ``now``; False when there was none."""
        ...

    def expire(self, model: ModelCard, keep_alive: float) -> None:
        """Set when idle children of ``model`` go, ``keep_alive`` seconds from now (0 = now)."""
        ...

    def status(self) -> tuple[ChildStatus, ...]:
        """All children, latest expiry first."""
        ...

    async def look(self) -> None:
        """Bring up to date what ``status`` tells and only the children know; a second at most."""
        ...

    async def cause_of_death(self, child: str, wait: float = 1.0) -> str | None:
        """Why ``child`` died (exit code or signal, last log lines), waiting up to ``wait`` s for it to be known; None if alive."""
        ...

    def was_unloaded(self, child: str) -> bool:
        """True for one that was ended under its requests because somebody asked for that."""
        ...
