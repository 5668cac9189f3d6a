"""``/v1/audio/transcriptions``: a recording to a model that hears, and what it makes of it as JSON, text or a stream of events."""

from __future__ import annotations

from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.answer import Answer
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.passage import last_words
from llamamgr.proxy.relay import GenerationFailedError, Want
from llamamgr.proxy.services import services_of
from llamamgr.proxy.upstream import open_exchange
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import transcription
from llamamgr.wire.engine import error_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.transcription import Transcript, TranscriptionRequest

_TEXT = "text/plain; charset=utf-8"


async def transcriptions(request: web.Request) -> web.StreamResponse:
    asked = transcription.parse(request.headers.get("Content-Type", ""), await body_of(request))
    card = await services_of(request).resolve(asked.model)
    if "audio" not in card.capabilities:
        raise DialectError(400, f'"{asked.model}" does not support audio', param="model")
    return await Hearing(request, asked).run(Want(card))


class Hearing:
    """One recording on its way to a transcript."""

    def __init__(self, request: web.Request, asked: TranscriptionRequest) -> None:
        self._request = request
        self._asked = asked
        self._writer = Writer(request, replies.EVENTS)
        self._transcript = Transcript()

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request, want, self._writer, self._attempt, whole=whole, last_words=last_words
        )

    def _answer(self) -> web.Response:
        if self._asked.as_text:
            return Answer(self._transcript.text.encode(), _TEXT)
        return replies.v1(transcription.answer(self._transcript))

    async def _attempt(self, lease: Lease) -> None:
        heard = self._transcript = Transcript()
        headers, form = (("Content-Type", self._asked.content_type),), self._asked.form
        async with open_exchange(
            lease.endpoint, "POST", "/v1/audio/transcriptions", headers, form
        ) as exchange:
            if exchange.status != 200:
                raise GenerationFailedError(error_of(exchange.status, await exchange.read()))
            async for data in exchange:
                piece = heard.feed(data)
                if piece and self._asked.stream:
                    await self._writer.write(transcription.piece_event(piece))
                if heard.ended or heard.failed:
                    break
        heard.eof()
        if heard.failed:
            raise GenerationFailedError(heard.failed)
        lease.tokens.add(heard.usage.prompt, heard.usage.cached, heard.usage.completion)
        if self._asked.stream:
            await self._writer.write(transcription.last_event(heard))
