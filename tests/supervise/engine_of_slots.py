"""A server that has one slot to save, as llama-server tells of it: for what the fake, which keeps no cache, cannot show."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path


class EngineOfSlots:
    """``async with`` gives the path of its socket. Saving takes as long as ``bytes_per_second`` says; reading likewise.

    ``asked`` are the targets of all requests.
    """

    def __init__(self, path: Path, *, tokens: int, seconds_per_token: float) -> None:
        self._path = path
        self._tokens = tokens
        self.seconds_per_token = seconds_per_token
        self.bytes_per_second = 1e9
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return str(self._path)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
        )
        await reader.readexactly(length)
        target = head.split(" ", 2)[1]
        self.asked.append(target)
        body = self._answer(target).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    def _answer(self, target: str) -> str:
        if target == "/slots":
            return json.dumps([{"id": 0, "is_processing": False, "n_prompt_tokens": self._tokens}])
        if target == "/metrics":
            return f"llamacpp:prompt_tokens_total 100\nllamacpp:prompt_seconds_total {100 * self.seconds_per_token}\n"
        if target.endswith("action=save"):
            size = self._tokens * 10_000
            told = {"n_saved": self._tokens, "n_written": size}
            return json.dumps({**told, "timings": {"save_ms": 1000 * size / self.bytes_per_second}})
        if target.endswith("action=restore"):
            return json.dumps({"n_restored": self._tokens})
        return json.dumps({"timings": {"cache_n": 20, "prompt_n": 1}})
