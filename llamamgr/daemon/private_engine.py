"""The engine behind one ``LlamaServer``: the second composition root over the same supervisor, without front and daemon.

::

    program there? ── llama-server ──► supervised child, kept until the end   (started at most twice)
          │
          ├────────── llama-cli ─────► one program per answer, said aloud
          └────────── neither ───────► MissingToolError

Only a missing program leads down the ladder. A llama-server that runs and refuses its model is an error at once: llama-cli carries
the same engine and would load the same file only to refuse it again.

It all lives on the loop of one ``OwnThread``; its files lie in a folder that goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import (
    BusyError,
    EngineError,
    LlamamgrError,
    MissingToolError,
    NotFoundError,
    UsageError,
)
from llamamgr.daemon.conversation import Reply, reply_of
from llamamgr.daemon.one_shot import PROGRAM as LLAMA_CLI
from llamamgr.daemon.one_shot import OneShot
from llamamgr.daemon.private_order import OneBuild, Order, Wanted, look_up
from llamamgr.host.paths import ensure
from llamamgr.host.private_folder import private_folder
from llamamgr.proxy.upstream import UpstreamLostError, open_exchange
from llamamgr.supervise.lease import Endpoint, Lease
from llamamgr.supervise.orphans import ChildrenFile
from llamamgr.supervise.supervisor import Supervisor
from llamamgr.wire.engine import chat_call, error_of
from llamamgr.wire.neutral import ChatRequest, Event, Failed

log = logging.getLogger(__name__)

LLAMA_SERVER = "llama-server"
Program = Literal["", "llama-server", "llama-cli"]

_MOST_STARTS = 2
_INSTALL = "run `llamamgr install`"
_ERRORS: dict[int, type[LlamamgrError]] = {
    400: UsageError,
    404: NotFoundError,
    501: UsageError,
    503: BusyError,
}


class PrivateEngine:
    """One model on one llama-server of its own. ``opened`` is the context in which all coroutines run."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._starts = 0
        self._child = ""
        self._endpoint = Endpoint()
        self._verdict = ""  # why the last child is no more
        self._flows: set[Flow] = set()
        self.program: Program = ""

    @functools.cached_property
    def wanted(self) -> Wanted:
        """The order looked up, once; the only part that may be asked from outside ``opened``."""
        return look_up(self._order)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The folder, the supervisor and the choice of the program; at the end no process and no file is left."""
        wanted = self.wanted
        self.program = _program_of(wanted.build)
        with private_folder(_reap) as folder:
            ensure(folder / "engine-config")
            if self.program == LLAMA_CLI:
                log.warning(
                    "build %s has no llama-server: each answer loads the model anew with %s",
                    wanted.build.key,
                    LLAMA_CLI,
                )
            options = msgspec.structs.replace(wanted.options, context=wanted.context)
            self._one_shot = OneShot(wanted.build, wanted.model, options, folder)
            self._starting = asyncio.Lock()
            self._supervisor = Supervisor(
                wanted.config,
                OneBuild(wanted.build),
                run=folder,
                state=folder,
                children_file=_children_file(folder),
            )
            async with self._supervisor:
                try:
                    yield
                finally:
                    for flow in list(self._flows):
                        await flow.close()

    async def start(self) -> None:
        """Have the child ready; nothing with llama-cli, which is started for each answer."""
        if self.program == LLAMA_SERVER:
            await self._have_child()

    async def endpoint(self) -> Endpoint:
        """Where the child answers, started if need be; ``MissingToolError`` with llama-cli."""
        if self.program != LLAMA_SERVER:
            raise MissingToolError(
                f"build {self.wanted.build.key} has no llama-server, so there is no address", _INSTALL
            )
        await self._have_child()
        return self._endpoint

    async def pid(self) -> int:
        """The child's process id; 0 while there is none."""
        return next((child.pid for child in self._supervisor.status()), 0)

    async def chat(self, request: ChatRequest) -> Reply:
        """A whole answer, asked once more of a new child when the first one died over it."""
        if self.program == LLAMA_CLI:
            return reply_of(await self._one_shot.answer(request))
        while True:
            async with self._lease() as lease:
                try:
                    async with aclosing(_generate(lease.endpoint, request)) as events:
                        return reply_of([event async for event in events])
                except UpstreamLostError as lost:
                    await self._judge(lease, lost, may_ask_again=True)

    def flow(self, request: ChatRequest) -> Flow:
        """The events of an answer, one at a time; it begins with the first one asked for."""
        return Flow(self._events(request), self._flows)

    async def _events(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        if self.program == LLAMA_CLI:
            for event in await self._one_shot.answer(request):
                yield event
            return
        has_told = False
        while True:
            async with self._lease() as lease:
                try:
                    async with aclosing(_generate(lease.endpoint, request)) as events:
                        async for event in events:
                            has_told = True
                            yield event
                        return
                except UpstreamLostError as lost:
                    await self._judge(lease, lost, may_ask_again=not has_told)

    # -- the child

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[Lease]:
        await self._have_child()
        async with self._acquired() as lease:
            yield lease

    async def _have_child(self) -> None:
        """A child that lives, as far as is known; takes none of its slots, which may all be busy."""
        async with self._starting:  # one start, however many ask at once
            if not self._child or await self._cause(0):
                await self._start_child()

    async def _start_child(self) -> None:
        """A first start, or the one second chance; after that the cause of the last end."""
        if self._child and (cause := await self._cause(0)):
            self._verdict = f"the llama-server of {self.wanted.model.name} died: {cause}"
        if self._starts >= _MOST_STARTS:
            raise EngineError(self._verdict, "it had its second chance; make a new LlamaServer to try again")
        if self._verdict:
            log.warning("starting llama-server once more: %s", self._verdict)
        try:
            async with self._acquired() as lease:
                self._child, self._endpoint = lease.child, lease.endpoint
        except EngineError as error:
            self._starts += 1
            self._verdict, self._child = error.what, ""
            # the supervisor's hint leads to a log that goes with this server
            raise EngineError(
                self._verdict, "its last words are above; is that file a model it knows?"
            ) from None
        self._starts += 1

    def _acquired(self) -> contextlib.AbstractAsyncContextManager[Lease]:
        wanted = self.wanted
        return self._supervisor.acquire(wanted.model, wanted.options, keep_alive=math.inf)

    async def _cause(self, wait: float) -> str | None:
        return await self._supervisor.cause_of_death(self._child, wait)

    async def _judge(self, lease: Lease, lost: UpstreamLostError, *, may_ask_again: bool) -> None:
        """Return when asking again is safe and allowed; else raise what there is to tell of the loss."""
        cause = await self._supervisor.cause_of_death(lease.child, 1.0)
        if cause is None:
            raise EngineError(
                f"lost the connection to the llama-server of {lease.model.name}: {lost.why}", "ask again"
            ) from lost
        if not may_ask_again or self._starts >= _MOST_STARTS:
            raise EngineError(
                f"the llama-server of {lease.model.name} died while answering: {cause}",
                "a shorter prompt, a smaller context or another build may help",
            ) from lost


class Flow:
    """One streamed answer: ``next`` and ``close`` take turns, so that closing never meets a generator that runs.

    It is among ``begun`` from its first step to its end.
    """

    def __init__(self, events: AsyncGenerator[Event, None], begun: set[Flow]) -> None:
        self._events = events
        self._begun = begun
        self._turn = asyncio.Lock()
        self._is_open = True

    async def next(self) -> Event | None:
        """The next event; None at the good end. ``EngineError`` once it was closed."""
        async with self._turn:
            if not self._is_open:
                raise EngineError("the stream was closed before its end", "read it to its end, then close")
            self._begun.add(self)
            try:
                event = await anext(self._events, None)
            except BaseException:
                self._end()
                raise
            if event is None:
                self._begun.discard(self)
            return event

    async def close(self) -> None:
        """Give up the rest: the connection closes, and the engine stops generating."""
        async with self._turn:
            self._end()
            await self._events.aclose()

    def _end(self) -> None:
        self._is_open = False
        self._begun.discard(self)


async def _generate(endpoint: Endpoint, request: ChatRequest) -> AsyncGenerator[Event, None]:
    call = chat_call(request)
    headers = (("Content-Type", "application/json"),)
    async with open_exchange(endpoint, call.method, call.path, headers, call.body) as exchange:
        if exchange.status != 200:
            raise _error_of(error_of(exchange.status, await exchange.read()))
        stream = call.stream()
        async for data in exchange:
            for event in stream.feed(data):
                yield _sound(event)
            if stream.ended:
                return
        for event in stream.eof():
            yield _sound(event)


def _sound(event: Event) -> Event:
    if isinstance(event, Failed):
        raise _error_of(event)
    return event


def _error_of(failed: Failed) -> LlamamgrError:
    kind = _ERRORS.get(failed.status, EngineError)
    hint = "change the request" if kind is UsageError else "ask again"
    return kind(f"llama-server refused: {failed.message}", hint)


def _program_of(build: Build) -> Program:
    if os.access(build.tool(LLAMA_SERVER), os.X_OK):
        return "llama-server"
    if os.access(build.tool(LLAMA_CLI), os.X_OK):
        return "llama-cli"
    raise MissingToolError(
        f"build {build.key} has neither {LLAMA_SERVER} nor {LLAMA_CLI}", "install another: `llamamgr install`"
    )


def _children_file(folder: Path) -> Path:
    return folder / "children.json"


def _reap(folder: Path) -> None:
    """What a killed program left: its child where the kernel did not end it, or the child's own children."""
    for orphan in ChildrenFile(_children_file(folder)).reap():
        log.warning(
            "reaped llama-server pid %d (%s), left by a program that was killed", orphan.pid, orphan.model
        )
