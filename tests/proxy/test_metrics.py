"""``/metrics``: what is counted, and that any scraper can read it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import HI, Front, MakeFront

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(front: Front, accept: str = "") -> tuple[str, str]:
    async with front.session.get("/metrics", headers={"Accept": accept} if accept else {}) as answer:
        assert answer.status == 200
        return await answer.text(), answer.headers["Content-Type"]


async def samples(front: Front) -> Samples:
    text, _ = await scraped(front)
    found = {}
    for family in prometheus(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"llamamgr_{name}", frozenset(labels.items())))


async def test_requests_are_counted_by_dialect_route_and_status(front: Front) -> None:
    await front.whole("/api/generate", model="tinychat", prompt="hi")
    await front.whole("/api/generate", model="nope", prompt="hi")
    await front.lines("/api/chat", model="tinychat", messages=HI)
    async with front.session.get("/v1/models/tinychat"), front.session.get("/no/such/page"):
        pass
    found = await samples(front)
    generate = {"dialect": "ollama", "route": "/api/generate"}
    assert value(found, "requests_total", **generate, status="200") == 1
    assert value(found, "requests_total", **generate, status="404") == 1
    assert value(found, "requests_total", dialect="openai", route="/v1/models/{name}", status="200") == 1
    assert value(found, "requests_total", dialect="llamamgr", route="none", status="404") == 1
    assert value(found, "time_to_first_byte_seconds_count", **generate) == 2
    assert value(found, "requests_in_flight", dialect="llamamgr", route="/metrics") == 1


ANSWERS: list[tuple[str, dict[str, Any], int]] = [
    ("/api/generate", {"prompt": "hi"}, 1),
    ("/api/chat", {"messages": HI}, 1),
    ("/v1/chat/completions", {"messages": HI}, 1),
    ("/v1/chat/completions", {"messages": HI, "stream": True}, 1),
    ("/v1/completions", {"prompt": "hi", "stream": True}, 1),
    ("/v1/responses", {"input": "hi"}, 1),
    ("/v1/messages", {"messages": HI, "max_tokens": 100, "stream": True}, 1),
]


@pytest.mark.parametrize(("path", "body", "count"), ANSWERS, ids=[f"{p}{len(b)}" for p, b, _ in ANSWERS])
async def test_tokens_are_counted_by_model_in_every_dialect(
    front: Front, path: str, body: dict[str, Any], count: int
) -> None:
    async with front.post(path, {"model": "tinychat", **body}) as answer:
        assert answer.status == 200, await answer.read()
        await answer.read()
    found = await samples(front)
    assert (value(found, "prompt_tokens_total", model="tinychat:latest") or 0) > 0
    assert (value(found, "generated_tokens_total", model="tinychat:latest") or 0) > 1


async def test_a_stream_and_a_whole_answer_count_the_same_tokens(front: Front) -> None:
    seen = []
    for stream in (False, True):
        async with front.post(
            "/v1/chat/completions", {"model": "tinychat", "messages": HI, "stream": stream}
        ) as answer:
            await answer.read()
        found = await samples(front)
        seen.append(value(found, "generated_tokens_total", model="tinychat:latest"))
    assert seen[1] == 2 * (seen[0] or 0)


async def test_embeddings_count_as_tokens_of_prompts(front: Front) -> None:
    await front.whole("/v1/embeddings", model="tinyembed", input=["hello", "world"])
    found = await samples(front)
    assert (value(found, "prompt_tokens_total", model="tinyembed:latest") or 0) > 0
    assert value(found, "generated_tokens_total", model="tinyembed:latest") == 0


async def test_a_client_that_leaves_is_499_and_no_longer_in_flight(front: Front) -> None:
    chat = {"dialect": "ollama", "route": "/api/generate"}
    answer = await front.post("/api/generate", {"model": "tinychat", "prompt": ENDLESS}).__aenter__()
    await answer.content.readany()
    assert value(await samples(front), "requests_in_flight", **chat) == 1
    answer.close()
    async with asyncio.timeout(10):
        while value(await samples(front), "requests_total", **chat, status="499") != 1:
            await asyncio.sleep(0.01)
    assert value(await samples(front), "requests_in_flight", **chat) == 0


async def test_a_stream_that_breaks_is_counted(make_front: MakeFront) -> None:
    async with make_front("exit-at=mid-stream") as front:
        await front.broken("/api/chat", model="tinychat", messages=HI)
        assert value(await samples(front), "broken_answers_total") == 1


async def test_engines_are_told_with_state_and_memory(front: Front) -> None:
    await front.whole("/api/generate", model="tinychat", prompt="hi")
    found = await samples(front)
    one = {"engine": "child-1", "model": "tinychat:latest"}
    assert value(found, "engines", state="ready") == 1
    assert value(found, "engines", state="loading") == 0
    assert value(found, "engine_info", **one, build="default/b1", state="ready") == 1
    assert value(found, "engine_memory_bytes", **one) == 1000
    assert value(found, "engine_planned_bytes", **one, device="host") == 1000
    assert value(found, "build_info", version="1.2.3") == 1
    assert value(found, "queue_length") == 0
    assert (value(found, "resident_memory_bytes") or 0) > 1_000_000


async def test_both_text_formats_are_served_and_well_formed(front: Front) -> None:
    await front.whole("/api/generate", model="tinychat", prompt="hi")
    front.services.tally.of('a"b\\c\nd:latest').failed("llama-server exited with code 1", loading=True)
    text, kind = await scraped(front)
    assert kind.startswith("text/plain; version=")
    names = {family.name for family in prometheus(text)}
    assert len(names) > 20
    assert all(name.startswith("llamamgr_") for name in names)
    text, kind = await scraped(front, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    failed = next(f for f in openmetrics(text) if f.name == "llamamgr_engine_failures").samples[0]
    assert failed.labels == {"model": 'a"b\\c\nd:latest', "phase": "load", "cause": "exit"}


async def test_with_a_model_the_engines_own_numbers_come(front: Front) -> None:
    async with front.session.get("/metrics?model=nope") as answer:
        assert (answer.status, json.loads(await answer.read())["error"]["code"]) == (404, "model_not_found")
    async with front.session.get("/metrics?model=tinychat") as answer:
        assert "llamamgr_" not in await answer.text()
    assert len(front.children.granted) == 1
