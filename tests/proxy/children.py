"""A small but real supervisor for tests of the front: one process per model, started at first need."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from llamamgr.core.cards import Build, BuildCard, ModelCard, Source
from llamamgr.core.errors import BusyError, EngineError
from llamamgr.supervise.lease import NO_WISHES, ChildStatus, Endpoint, Lease, LoadOptions
from llamamgr.supervise.tally import Tally
from tests.fakes.launch import Launched, start

CONTEXT, SLOTS, MEMORY = 2048, 4, 1000
BUILD = Build(BuildCard("b1", "default", "cpu", 11434, "0c1e570", Source("package")), "/nowhere")


class Running:
    """One child: its id, model and process."""

    def __init__(self, child: str, model: ModelCard, launched: Launched) -> None:
        self.child = child
        self.model = model
        self.launched = launched
        self.context = context_of(model)

    @property
    def exit_code(self) -> int | None:
        return self.launched.process.poll()


def context_of(model: ModelCard) -> int:
    return min(CONTEXT, model.context or CONTEXT)


class TestChildren:
    """``Children`` of ``lease``. ``leases`` counts those held now, ``granted`` lists all ever; ``busy`` refuses."""

    __test__ = False

    def __init__(self, binary: Path, folder: Path, faults: str = "") -> None:
        self.binary = binary
        self.folder = folder
        self.faults = faults
        self.running: dict[str, Running] = {}
        self.leases = 0
        self.granted: list[tuple[ModelCard, LoadOptions, float | None]] = []
        self.priorities: list[int] = []
        self.busy = False
        self.looks = 0
        self.tally = Tally()
        self._count = 0
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def acquire(
        self,
        model: ModelCard,
        options: LoadOptions = NO_WISHES,
        *,
        keep_alive: float | None = None,
        priority: int = 0,
    ) -> AsyncIterator[Lease]:
        if self.busy:
            raise BusyError("server busy, please try again.  maximum pending requests exceeded", "", 7)
        async with self._lock:
            running = await self._child(model)
        self.leases += 1
        self.priorities.append(priority)
        self.granted.append((model, options, keep_alive))
        try:
            endpoint = Endpoint(socket=running.launched.socket)
            tokens = self.tally.of(model.name).tokens
            yield Lease(running.child, endpoint, model, BUILD, running.context, tokens)
        finally:
            self.leases -= 1

    async def _child(self, model: ModelCard) -> Running:
        known = self.running.get(model.name)
        if known is not None and known.exit_code is None:
            return known
        self._count += 1
        running = Running(f"child-{self._count}", model, self._start(model))
        self.running[model.name] = running
        try:
            await asyncio.to_thread(running.launched.wait_healthy)
        except AssertionError as error:
            raise EngineError(f"{model.name} could not be loaded: {error}", "see its log") from None
        return running

    def _start(self, model: ModelCard) -> Launched:
        shape = ["-np", str(SLOTS), "-c", str(SLOTS * context_of(model))]
        arguments = ["--model", model.path, "--alias", model.name, *shape]
        if "rerank" in model.capabilities:
            arguments.append("--reranking")
        if "embedding" in model.capabilities:
            arguments += ["--embeddings", "-b", str(context_of(model)), "-ub", str(context_of(model))]
        stem = self.folder / str(self._count)
        return start(
            self.binary, arguments, f"{stem}.sock", stem.with_suffix(".log"), {"FAKE_LLAMA": self.faults}
        )

    async def unload(self, model: ModelCard, *, now: bool = False) -> bool:
        known = self.running.pop(model.name, None)
        if known is not None:
            await asyncio.to_thread(known.launched.kill)
        return known is not None

    def expire(self, model: ModelCard, keep_alive: float) -> None:
        if keep_alive == 0 and model.name in self.running:
            self.running.pop(model.name).launched.kill()

    def status(self) -> tuple[ChildStatus, ...]:
        alive = [running for running in self.running.values() if running.exit_code is None]
        return tuple(map(status_of, reversed(alive)))

    async def look(self) -> None:
        self.looks += 1

    def was_unloaded(self, child: str) -> bool:
        return False

    async def cause_of_death(self, child: str, wait: float = 1.0) -> str | None:
        running = next((running for running in self.running.values() if running.child == child), None)
        if running is None:
            return "it was stopped"
        deadline = time.monotonic() + wait
        while running.exit_code is None:
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.005)
        last_line = running.launched.log.read_text().splitlines()[-1]
        return f"exit code {running.exit_code}: {last_line}"

    def close(self) -> None:
        for running in self.running.values():
            running.launched.kill()


def status_of(running: Running) -> ChildStatus:
    now = time.time()
    return ChildStatus(
        id=running.child,
        model=running.model,
        build=BUILD.key,
        build_number=BUILD.card.number,
        state="ready",
        pid=running.launched.process.pid,
        context=running.context,
        slots=SLOTS,
        busy=0,
        queued=0,
        memory=MEMORY,
        memory_gpu=0,
        started=now,
        expires=now + 300,
        planned={"host": MEMORY},
    )
