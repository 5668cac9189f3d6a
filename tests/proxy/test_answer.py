"""Whole answers in one piece, routes found by one look-up: the same as what they stand in for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import ClientConnectionResetError, HttpVersion11
from multidict import CIMultiDict

from llamamgr.proxy.answer import Answer
from llamamgr.proxy.metrics import RouteMetrics
from llamamgr.proxy.visit import Visit, begin
from tests.proxy.conftest import Front
from tests.proxy.raw import wire

SAID_BY_ALL = {"server", "date", "x-request-id", "content-type", "content-length"}


async def test_the_short_head_says_what_the_long_one_does(front: Front) -> None:
    async with wire(front.port) as line:
        line.ask("GET /api/version")
        short = await line.answer()
        line.ask("GET /api/version", "Origin: http://localhost:3000")
        long = await line.answer()
        line.ask("GET /api/version", "Connection: close")
        last = await line.answer()
    assert set(short.headers) == SAID_BY_ALL
    assert set(long.headers) > SAID_BY_ALL
    assert {**last.headers, "connection": "close"} == last.headers
    for name in ("server", "content-type", "content-length"):
        assert short.headers[name] == long.headers[name] == last.headers[name]
    assert short.body == long.body == last.body


async def test_an_answer_that_is_no_200_or_says_more_has_its_headers(front: Front) -> None:
    async with wire(front.port) as line:
        line.ask("POST /v1/messages", body=b"{}")
        refused = await line.answer()
        line.ask("GET /nope")
        unknown = await line.answer()
    assert refused.headers["request-id"].startswith("req_")
    assert (refused.status, unknown.status, unknown.headers["content-type"]) == (400, 404, "text/plain")


class Peer:
    """What an answer sees of a connection; ``may_go_on`` is set when the client has taken what was written."""

    def __init__(self, *, is_closing: bool = False) -> None:
        self.written = b""
        self.may_go_on = asyncio.Event()
        writer = SimpleNamespace(output_size=0, drain=self.may_go_on.wait)
        transport = SimpleNamespace(write=self.write, is_closing=lambda: is_closing)
        self.request = cast(
            "Any",
            SimpleNamespace(
                writer=writer,
                transport=transport,
                version=HttpVersion11,
                keep_alive=True,
                method="GET",
                headers=CIMultiDict(),
            ),
        )

    def write(self, data: bytes) -> None:
        self.written += data


async def test_an_answer_is_not_over_before_its_client_takes_it() -> None:
    begin(Visit("abc-1", RouteMetrics(), 0.0))
    peer, answer = Peer(), Answer(b"{}", "application/json")
    async with asyncio.TaskGroup() as tasks:
        preparing = tasks.create_task(answer.prepare(peer.request))
        await asyncio.sleep(0)
        assert peer.written.endswith(b"\r\n\r\n{}")
        assert peer.request.writer.output_size == len(peer.written)
        assert not preparing.done()
        peer.may_go_on.set()
    assert answer.prepared


async def test_an_answer_to_a_client_that_left_is_a_lost_connection() -> None:
    begin(Visit("abc-1", RouteMetrics(), 0.0))
    peer = Peer(is_closing=True)
    with pytest.raises(ClientConnectionResetError):
        await Answer(b"{}", "application/json").prepare(peer.request)
    assert peer.written == b""


@pytest.mark.parametrize("target", ["/api/version", "/api/version?x=1", "/%61pi/version"])
async def test_a_route_is_found_however_its_path_is_written(front: Front, target: str) -> None:
    async with wire(front.port) as line:
        line.ask(f"GET {target}")
        answer = await line.answer()
    assert answer.status == 200
    route = front.services.metrics.routes["/api/version"]
    assert (route.in_flight, route.statuses[200], sum(route.first_byte.counts)) == (0, 1, 1)
