"""A chat's answer as neutral events: by the engine's own chat template, or by a model's Go template, which is rendered here."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from llamamgr.proxy import relay
from llamamgr.proxy.relay import GenerationFailedError, Take
from llamamgr.supervise.lease import Lease
from llamamgr.wire import engine
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.neutral import ChatRequest, Event, MediaPart, Message, PromptRequest
from llamamgr.wire.placing import without_tags
from llamamgr.wire.script import Script
from llamamgr.wire.shortening import shortened
from llamamgr.wire.template_answer import TemplateAnswer

log = logging.getLogger(__name__)


async def perform(lease: Lease, chat: ChatRequest, script: Script | None, now: int, take: Take) -> None:
    """Generate as ``relay.generate``; ``now`` is nanoseconds since the epoch. ``DialectError`` when the template fails."""
    if script is None:
        call = engine.chat_call(chat)
        wanted = await relay.preferred(lease, call.body, take)
        await relay.generate(lease, msgspec.structs.replace(call, body=wanted), take)
        return
    prompt = script.prompt(chat, now)
    call = await completion(lease, script.continuation(chat, prompt))
    await relay.generate(lease, call, reading(script.reader(chat, prompt), take))


async def completion(lease: Lease, asked: PromptRequest) -> EngineCall:
    """A prompt that was made here, with what this engine knows media by."""
    return engine.completion_call(asked, await marker(lease) if asked.media else "")


async def marker(lease: Lease) -> str:
    """What stands for an image or a sound in the prompts of this engine."""
    return await relay.ask(lease.endpoint, engine.props_call(), engine.read_marker)


async def fitting(
    lease: Lease,
    chat: ChatRequest,
    once: Callable[[ChatRequest], Awaitable[None]],
    may_cut: Callable[[], bool],
) -> None:
    """``once`` with ``chat``; while it is refused as too long and ``may_cut``, again without its oldest turns."""
    while True:
        try:
            return await once(chat)
        except GenerationFailedError as error:
            shorter = shortened(chat, error.failed.message) if may_cut() else None
            if shorter is None:
                raise
            chat = shorter
            left = len(chat.messages)
            log.info("%s: %d messages are left of a conversation that was too long", lease.model.name, left)


def reading(reader: TemplateAnswer, take: Take) -> Take:
    """``take``, of what ``reader`` makes of the events."""

    async def read(events: Sequence[Event]) -> None:
        told = reader.feed(events)
        if told:
            await take(told)

    return read


async def count(lease: Lease, chat: ChatRequest, script: Script | None, now: int) -> int:
    """Tokens of the prompt that ``chat`` becomes; on builds that cannot count them, by rendering it and cutting it up."""
    if script is not None:
        prompt = script.continuation(chat, script.prompt(chat, now))
        text = await _tokens(lease, without_tags(prompt.prompt))
        return text + await _tokens_of_media(lease, prompt.media)
    try:
        return await relay.ask(lease.endpoint, engine.count_call(chat), engine.read_count)
    except GenerationFailedError as error:
        if error.failed.status != 404:
            raise
    call = engine.apply_template_call(chat.messages, chat.think, chat.tools)
    return await _tokens(lease, await relay.ask(lease.endpoint, call, engine.read_prompt))


async def _tokens_of_media(lease: Lease, media: tuple[str, ...]) -> int:
    """By what they add to a turn, which only the engine knows; 0 on builds that cannot count it."""
    if not media:
        return 0
    with_them = Message("user", parts=tuple(map(MediaPart, media)))
    try:
        more, less = [
            await relay.ask(lease.endpoint, engine.count_call(ChatRequest((turn,))), engine.read_count)
            for turn in (with_them, Message("user"))
        ]
    except GenerationFailedError as error:
        if error.failed.status != 404:
            raise
        return 0
    return more - less


async def _tokens(lease: Lease, prompt: str) -> int:
    call = engine.tokenize_call(prompt, add_special=True)
    return len(await relay.ask(lease.endpoint, call, engine.read_tokens))
