"""One generation: a lease, an exchange with its child, events out; retried once while the client has seen nothing.

A child that dies takes its answer with it. As long as no byte of it has reached the client, asking again on a new lease is
safe, since a generation changes nothing; afterwards the failure is told, with the cause of death.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import visit
from llamamgr.proxy.connection import AnswerTooLongError
from llamamgr.proxy.upstream import Exchange, UpstreamLostError, open_exchange
from llamamgr.supervise.lease import NO_WISHES, Children, Endpoint, Lease, LoadOptions
from llamamgr.wire.engine import EngineCall, detokenize_call, error_of, read_content
from llamamgr.wire.errors import DialectError, ProtocolError
from llamamgr.wire.neutral import Event, Failed, Finished, PromptRead
from llamamgr.wire.persona import NOBODY, persona_of
from llamamgr.wire.plainer_turns import plainer
from llamamgr.wire.precedence import Watch, both_of

Answer = TypeVar("Answer")
Take: TypeAlias = Callable[[Sequence[Event]], Awaitable[None]]
CHAT = "/v1/chat/completions"
JSON = (("Content-Type", "application/json"),)


class GenerationFailedError(Exception):
    """A generation came to a bad end; ``failed`` is what there is to tell."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Want(msgspec.Struct, frozen=True):
    """Whose lease is needed: the model, how to load it, and seconds it stays afterwards (None = default)."""

    model: ModelCard
    options: LoadOptions = NO_WISHES
    keep_alive: float | None = None


def want_of(model: ModelCard) -> Want:
    """A lease on ``model`` as its own Modelfile wants it loaded; what a request of another dialect than Ollama's needs."""
    persona = persona_of(model)
    return (
        Want(model)
        if persona is NOBODY
        else Want(model, LoadOptions(**msgspec.structs.asdict(persona.options.load)))
    )


def _nothing_yet() -> bool:
    return False


async def with_lease(
    children: Children,
    want: Want,
    use: Callable[[Lease], Awaitable[Answer]],
    sent: Callable[[], bool] = _nothing_yet,
) -> Answer:
    """What ``use`` gives under a lease; it is run once more on a new lease when its child got lost and nothing was ``sent``.

    ``GenerationFailedError`` tells a loss that could not be mended; errors of ``acquire`` and of ``use`` pass.
    """
    is_first = True
    while True:
        lease_of = children.acquire(
            want.model, want.options, keep_alive=want.keep_alive, priority=visit.priority()
        )
        async with lease_of as lease:
            try:
                return await use(lease)
            except AnswerTooLongError as long:
                failed = Failed(502, f"the engine of {want.model.name} answered: {long}", "server_error")
                raise GenerationFailedError(failed) from long
            except UpstreamLostError as lost:
                # known dead before the next lease is asked for, or it might be this very child again
                cause = await children.cause_of_death(lease.child)
                if children.was_unloaded(lease.child):
                    raise GenerationFailedError(_unloaded(want.model)) from lost
                is_half_answered = (
                    cause is None and lost.started
                )  # by one that lives: it would do the same again
                if sent() or not is_first or is_half_answered:
                    raise GenerationFailedError(_loss(want.model, lost, cause)) from lost
                is_first = False


def _unloaded(model: ModelCard) -> Failed:
    return Failed(503, f"{model.name} was unloaded while it answered", "unavailable_error")


def _loss(model: ModelCard, lost: UpstreamLostError, cause: str | None) -> Failed:
    if cause is None:
        return Failed(502, f"lost the connection to the engine of {model.name}: {lost.why}", "server_error")
    return Failed(502, f"the engine of {model.name} died while answering: {cause}", "server_error")


async def generate(lease: Lease, call: EngineCall, take: Take) -> None:
    """Run ``call`` on the leased child and hand its events on, never an empty list, and no ``Failed``.

    ``GenerationFailedError`` for a refusal or an error in mid-stream, ``UpstreamLostError`` when the child went away.
    """
    while True:
        async with open_exchange(lease.endpoint, call.method, call.path, JSON, call.body) as exchange:
            if exchange.status == 200:
                await _events(exchange, call, lease, take)
                return
            other = mended(call.body, error_of(exchange.status, await exchange.read()))
        call = msgspec.structs.replace(call, body=other)


def mended(body: bytes, failed: Failed) -> bytes:
    """What to ask instead of a chat that a template has refused; ``GenerationFailedError`` for any other failure."""
    other = plainer(body, failed)
    if other is None:
        raise GenerationFailedError(failed)
    return other


async def _events(exchange: Exchange, call: EngineCall, lease: Lease, take: Take) -> None:
    stream = call.stream()
    while pieces := await exchange.pieces():
        events = stream.feed(*pieces)
        await _hand_on(events, take)
        if stream.ended:
            _count(events, lease)
            return
    await _hand_on(stream.eof(), take)


def _count(events: list[Event], lease: Lease) -> None:
    last = events[-1] if events else None
    if isinstance(last, Finished):
        usage = last.usage
        lease.tokens.add(usage.prompt, usage.cached, usage.completion)


async def _hand_on(events: list[Event], take: Take) -> None:
    failed = events[-1] if events else None  # a failure is the last there is
    if not isinstance(failed, Failed):
        if events:
            await take(events)
        return
    if len(events) > 1:
        await take(events[:-1])
    raise GenerationFailedError(failed)


async def ask(endpoint: Endpoint, call: EngineCall, read: Callable[[bytes], Answer]) -> Answer:
    """A small question to a child; ``GenerationFailedError`` when it refuses or gives no sense."""
    async with open_exchange(endpoint, call.method, call.path, JSON, call.body) as exchange:
        body = await exchange.read()
    if exchange.status != 200:
        other = mended(call.body, error_of(exchange.status, body))
        return await ask(endpoint, msgspec.structs.replace(call, body=other), read)
    try:
        return read(body)
    except ProtocolError as error:
        raise GenerationFailedError(Failed(502, str(error), "protocol_error")) from error


class _Shown(Exception):  # noqa: N818 - no error: what was to be seen has been
    """An answer has shown what it is."""


async def preferred(lease: Lease, body: bytes, take: Take | None = None) -> bytes:
    """``body``, a chat request; of one with tools and a format only what the model needs of the two. Errors as ``generate``.

    ``take`` hears how far the prompt is read.
    """
    both = both_of(body)
    if both is None:
        return body
    if both.must_call:
        return both.calling()
    watch = Watch()

    async def look(events: Sequence[Event]) -> None:
        watch.feed(events)
        read = [event for event in events if isinstance(event, PromptRead)]
        if take is not None and read:
            await take(read)
        if watch.turn is not None:
            raise _Shown

    with contextlib.suppress(_Shown):
        await generate(lease, EngineCall("POST", CHAT, both.probe()), look)
    return both.calling() if watch.turn == "calls" else body


async def text_of(lease: Lease, tokens: tuple[int, ...], field: str) -> str:
    """What ``tokens`` of a client's ``field`` say; ``DialectError`` 400 when the model has no such tokens."""
    try:
        return await ask(lease.endpoint, detokenize_call(tokens), read_content)
    except GenerationFailedError as error:
        if error.failed.status not in (400, 500):
            raise  # that is nothing that the tokens have done
        raise DialectError(
            400, f"{field} has ids of tokens that the model does not have", param=field
        ) from None
