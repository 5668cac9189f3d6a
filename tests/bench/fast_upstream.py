#!/usr/bin/env python3
"""A llama-server in name only, made to answer faster than anything in front of it can ask.

It takes llama-server's options, listens where ``--host`` says, and answers chats with sentences made beforehand: whole ones, or
streams of as many chunks as the request allows tokens, after each of which it closes, as the real one does. It checks nothing and
fails at nothing: for that there is ``tests/fakes/fake_llama_server.py``, whose ``--help`` this one has too.

``BENCH_CORE`` in the environment pins it to that core.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

WORD = " llama"
_TOKENS = re.compile(rb'"(?:n_predict|max_tokens|max_completion_tokens)": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DEFAULT_TOKENS = 8
_BURST = 256 * 1024  # bytes: more than a socket holds, so that there is always something to read
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nX-Accel-Buffering: no\r\n"
    b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
_TIMINGS = {"cache_n": 0, "prompt_n": 4, "prompt_ms": 0.5, "predicted_n": 8, "predicted_ms": 2.0}


class Answers:
    """What is said under the name ``alias``, as bytes."""

    def __init__(self, alias: str) -> None:
        self._same = {
            "created": 1_700_000_000,
            "id": "chatcmpl-" + "f" * 32,
            "model": alias,
            "system_fingerprint": "b11434-0c1e570",
        }
        self._chunk = self._event({"delta": {"content": WORD}})
        self._role = self._event({"delta": {"role": "assistant", "content": None}})
        progress = {"total": 4, "cache": 0, "processed": 4, "time_ms": 0}
        self._progress = self._event(
            {"delta": {"role": "assistant", "content": None}}, prompt_progress=progress
        )
        self.fixed = {
            path: _whole(value)
            for path, value in {
                b"/health": {"status": "ok"},
                b"/slots": [{"id": 0, "is_processing": False}],
                b"/props": {"total_slots": 4, "model_alias": alias, "build_info": "b11434-0c1e570"},
                b"/v1/models": {"object": "list", "data": [{"id": alias, "object": "model"}]},
                b"/v1/chat/completions/input_tokens": {"input_tokens": 4},
            }.items()
        }

    @functools.cache  # noqa: B019 - one object lives as long as its process
    def whole(self, tokens: int) -> bytes:
        message = {"role": "assistant", "content": WORD * tokens}
        choice = {"finish_reason": "stop", "index": 0, "message": message}
        usage = self._usage(tokens)
        return _whole({"choices": [choice], **self._same, "object": "chat.completion", **usage})

    def first(self, *, progress: bool) -> bytes:
        return _STREAM_HEAD + (self._progress if progress else b"") + self._role

    def rest(self, tokens: int) -> Sequence[bytes]:
        """All after the first chunk, in pieces."""
        burst = max(1, _BURST // len(self._chunk))
        pieces = [self._many(burst)] * (tokens // burst)
        return [*pieces, self._many(tokens % burst) + self._last(tokens)]

    @functools.cache  # noqa: B019
    def _many(self, count: int) -> bytes:
        return self._chunk * count

    @functools.cache  # noqa: B019
    def _last(self, tokens: int) -> bytes:
        end = self._event({"delta": {}, "finish_reason": "stop"})
        counted = _chunked(
            {"choices": [], **self._same, "object": "chat.completion.chunk", **self._usage(tokens)}
        )
        return end + counted + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    def _event(self, choice: dict, **more: object) -> bytes:
        whole = {"finish_reason": None, "index": 0, **choice}
        return _chunked({"choices": [whole], **self._same, "object": "chat.completion.chunk", **more})

    @staticmethod
    def _usage(tokens: int) -> dict:
        usage = {"completion_tokens": tokens, "prompt_tokens": 4, "total_tokens": tokens + 4}
        return {"usage": usage, "timings": _TIMINGS}


def _chunked(event: dict) -> bytes:
    data = b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(value: object) -> bytes:
    raw = json.dumps(value, separators=(",", ":")).encode()
    head = (
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
        b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Keep-Alive: timeout=5, max=100\r\n\r\n"
    )
    return head % len(raw) + raw


class Connection(asyncio.Protocol):
    """One client; its requests are taken to come one at a time and whole but for their body."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._held.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._held)
            self._held.clear()
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end) if end >= 0 else None
        lacking = int(length[1]) - (len(data) - end - 4) if length else 1 if end < 0 else 0
        if lacking > 0:
            self._held.append(data)
            self._missing = lacking
            return
        self._answer(data, end)

    def _answer(self, data: bytes, end: int) -> None:
        transport = self._transport
        if transport is None:
            return
        path = data[data.index(b" ") + 1 : data.index(b" HTTP/1.")]
        fixed = self._answers.fixed.get(path)
        said = data[-4096:] if len(data) > 65536 else data  # options may stand before or after a large body
        asked = _TOKENS.search(data, end, end + 4096) or _TOKENS.search(said)
        tokens = int(asked[1]) if asked else _DEFAULT_TOKENS
        if fixed is not None:
            transport.write(fixed)
        elif _STREAM.search(data, end, end + 4096) or _STREAM.search(said):
            transport.write(self._answers.first(progress=b'"return_progress":true' in said))
            transport.writelines(self._answers.rest(tokens))
            transport.close()
        else:
            transport.write(self._answers.whole(tokens))
        if b"\r\nConnection: close" in data[:end]:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None


async def serve(options: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    answers = Answers(options.get("--alias", "selftest"))
    host = options.get("--host", "127.0.0.1")
    if host.endswith(".sock"):
        server = await loop.create_unix_server(lambda: Connection(answers), host, backlog=1024)
    else:
        server = await loop.create_server(lambda: Connection(answers), host, int(options.get("--port", "0")))
    print(f"fast upstream listens on {server.sockets[0].getsockname()}", flush=True)
    await stop.wait()
    server.close()


def main(argv: list[str]) -> None:
    if {"-h", "--help", "--version", "--list-devices"} & set(argv):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from tests.fakes import fake_llama_server

        fake_llama_server.main(argv)
    core = os.environ.get("BENCH_CORE")
    if core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    options = {
        word: value for word, value in zip(argv, [*argv[1:], ""], strict=True) if word.startswith("--")
    }
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(serve(options))


if __name__ == "__main__":
    main(sys.argv[1:])
