"""``LlamaServer``: a private llama-server for one program, without the daemon.

::

    with llamamgr.LlamaServer("qwen3:4b") as server:          async with llamamgr.LlamaServer("qwen3:4b") as server:
        print(server.chat("Why is the sky blue?"))                print(await server.achat("Why is the sky blue?"))
        for text in server.stream("And at night?"):               async for text in server.astream("And at night?"):
            print(text, end="")                                       print(text, end="")

It starts at its first use and is gone with its owner, however that ends: ``close``, garbage collection, the interpreter's exit, or
SIGKILL, upon which the kernel kills the child.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from llamamgr.core.errors import UsageError
from llamamgr.daemon.conversation import Messages, Reply, chat_request, reply_of
from llamamgr.daemon.own_thread import OwnThread
from llamamgr.daemon.private_engine import PrivateEngine
from llamamgr.daemon.private_order import Order, Transport
from llamamgr.supervise.lease import Endpoint, LoadOptions
from llamamgr.supervise.threads import in_thread
from llamamgr.wire.neutral import ChatRequest, Event, Finished, TextDelta

__all__ = ["AsyncStream", "LlamaServer", "Reply", "Stream"]

_UNIX_BASE = "http://localhost/v1"
_NO_KEY = "unused"


class LlamaServer:
    """One model on a llama-server of its own.

    ``model`` is a name of ``llamamgr list`` or the path of a GGUF file, ``instance`` the build's instance ("" = the configured
    one), ``context`` tokens per request (0 = the default), ``parallel`` requests at once, ``ready_timeout`` seconds a load may
    take. ``transport`` is "tcp" (loopback, with a key made for each launch) or "unix". ``load`` are further load options:
    ``gpu_layers``, ``batch``, ``threads``, ``main_gpu``, ``use_mmap``.

    Safe to use from several threads. All failures are ``llamamgr.core.errors``: ``NotFoundError`` (model, instance),
    ``MissingToolError`` (no build), ``EngineError`` (exit code and last log lines), ``BusyError`` (memory), ``UsageError``. A child
    that died is started once more at the next use; the second death is final. Where the build has no llama-server, ``chat`` and
    ``stream`` run llama-cli for each answer and say so in the log.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        instance: str = "",
        context: int = 0,
        parallel: int = 1,
        ready_timeout: float = 300.0,
        transport: Transport = "tcp",
        **load: Any,
    ) -> None:
        if transport not in ("tcp", "unix"):
            raise UsageError(f'transport {transport!r} is neither "tcp" nor "unix"', 'leave it out for "tcp"')
        options = _load_options({**load, "instance": instance, "context": context})
        name = model if isinstance(model, str) else str(Path(model).absolute())
        self._engine = PrivateEngine(Order(name, options, max(1, parallel), ready_timeout, transport))
        self._thread = OwnThread(self._engine.opened, f"LlamaServer {model}")
        # runs when this object is collected and when the interpreter exits, whichever comes first
        self._finalizer = weakref.finalize(self, self._thread.close)

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> LlamaServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- life

    def start(self) -> None:
        """Load the model now; otherwise the first use does."""
        self._thread.call(self._engine.start())

    async def astart(self) -> None:
        """As ``start``."""
        await self._thread.acall(self._engine.start())

    def close(self) -> None:
        """End the child and all that runs; what waits for an answer gets an ``EngineError``.

        Safe before the start, during it, after one that failed, twice, and from another thread. A closed server stays closed.
        """
        self._thread.close()

    async def aclose(self) -> None:
        """As ``close``."""
        await in_thread(self._thread.close)

    # -- where it answers; each of these starts it

    @property
    def base_url(self) -> str:
        """For OpenAI clients, with ``/v1``. Another one after a restart. Over UNIX the client must be told ``socket`` too."""
        where = self._endpoint()
        return _UNIX_BASE if where.socket else f"http://{where.host}:{where.port}/v1"

    @property
    def api_key(self) -> str:
        """The key of this launch; over UNIX, where the folder keeps strangers out, any will do."""
        return self._endpoint().api_key or _NO_KEY

    @property
    def socket(self) -> str:
        """The path of the UNIX socket; empty over TCP."""
        return self._endpoint().socket

    @property
    def pid(self) -> int:
        """The child's process id; 0 while it is between two lives."""
        self.start()
        return self._thread.call(self._engine.pid())

    @property
    def cache_identity(self) -> str:
        """What to key a cache of answers with: the same build, model and load options give the same 64 hex digits.

        Starts nothing and has nothing to do with address or launch.
        """
        return self._engine.wanted.cache_identity

    def _endpoint(self) -> Endpoint:
        return self._thread.call(self._engine.endpoint())

    # -- talking to it

    def chat(self, messages: Messages, **parameters: Any) -> Reply:
        """The whole answer to a text or a list of OpenAI messages.

        ``parameters`` are llama-server's own (``temperature``, ``max_tokens``, ``seed``, ``stop`` …) and ``tools``,
        ``tool_choice``, ``response_format`` as OpenAI has them, and ``think`` (bool, or a level).
        """
        return self._thread.call(self._engine.chat(chat_request(messages, parameters)))

    async def achat(self, messages: Messages, **parameters: Any) -> Reply:
        """As ``chat``."""
        return await self._thread.acall(self._engine.chat(chat_request(messages, parameters)))

    def stream(self, messages: Messages, **parameters: Any) -> Stream:
        """The answer as it comes; parameters as ``chat``."""
        return Stream(self, chat_request(messages, parameters))

    def astream(self, messages: Messages, **parameters: Any) -> AsyncStream:
        """As ``stream``."""
        return AsyncStream(self, chat_request(messages, parameters))


class _Answer:
    """What both streams share: the flow on the server's loop, and the events so far."""

    def __init__(self, server: LlamaServer, request: ChatRequest) -> None:
        self._server = server  # kept alive while it answers
        self._thread = server._thread
        self._flow = server._engine.flow(request)
        self._events: list[Event] = []

    @property
    def _is_complete(self) -> bool:
        return bool(self._events) and isinstance(self._events[-1], Finished)

    @property
    def reply(self) -> Reply:
        """The whole answer, once it has been read to its end; ``UsageError`` before."""
        if not self._is_complete:
            raise UsageError("the answer is not complete yet", "read the stream to its end first")
        return reply_of(self._events)

    def _hang_up(self) -> None:
        if self._thread.is_open and not self._is_complete:
            with contextlib.suppress(UsageError):  # closed this very moment, and every stream with it
                self._thread.submit(self._flow.close())


class Stream(_Answer):
    """Iterating gives the answer's text piece by piece, ``events`` all there is (thinking and tool calls too).

    The request is sent at the first step. Leaving a loop early, or ``close``, stops the engine's work on it.
    """

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if isinstance(event, TextDelta):
                yield event.text

    def events(self) -> Iterator[Event]:
        """Events of ``llamamgr.wire.neutral``: ``TextDelta``, ``ThinkingDelta``, ``ToolCallDelta``, at last ``Finished``."""
        try:
            while (event := self._thread.call(self._flow.next())) is not None:
                self._events.append(event)
                yield event
        finally:
            self._hang_up()

    def close(self) -> None:
        """Give up the rest of the answer."""
        self._hang_up()


class AsyncStream(_Answer):
    """As ``Stream``, for ``async for``."""

    async def __aiter__(self) -> AsyncIterator[str]:
        async for event in self.events():
            if isinstance(event, TextDelta):
                yield event.text

    async def events(self) -> AsyncIterator[Event]:
        """As ``Stream.events``."""
        try:
            while (event := await self._thread.acall(self._flow.next())) is not None:
                self._events.append(event)
                yield event
        finally:
            self._hang_up()

    async def aclose(self) -> None:
        """Give up the rest of the answer."""
        self._hang_up()


def _load_options(given: dict[str, Any]) -> LoadOptions:
    known = LoadOptions.__struct_fields__
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"there is no load option {name!r}", meant)
    try:
        return msgspec.convert(given, LoadOptions)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"load options: {error}", "context, threads and the like are whole numbers"
        ) from None
