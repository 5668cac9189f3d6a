"""Defaults and clamps of a model hold on every endpoint that generates: what the child was asked is what counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.proxy.conftest import HI, Front, MakeFront

SETTINGS = {
    "defaults": {"temperature": 0.25, "max_tokens": 4, "top_k": 11, "stop": ["END"]},
    "clamps": {"max_tokens": 6, "temperature": [0.1, 1.5], "n": 2},
}
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ollama chat": ("/api/chat", {"messages": HI}, "options"),
    "ollama generate": ("/api/generate", {"prompt": "hi"}, "options"),
    "ollama raw": ("/api/generate", {"prompt": "hi", "raw": True}, "options"),
    "openai chat": ("/v1/chat/completions", {"messages": HI}, ""),
    "openai completions": ("/v1/completions", {"prompt": "hi"}, ""),
    "openai responses": ("/v1/responses", {"input": "hi"}, ""),
    "anthropic": ("/v1/messages", {"messages": HI, "max_tokens": 5}, ""),
    "engine": ("/completion", {"prompt": "hi"}, ""),
    "engine infill": ("/infill", {"input_prefix": "hi", "input_suffix": "there"}, ""),
    "upstream": ("/upstream/tinychat/completion", {"prompt": "hi"}, ""),
    "upstream chat": ("/upstream/tinychat/v1/chat/completions", {"messages": HI}, ""),
    "upstream written oddly": ("/upstream/tinychat/completio%6E", {"prompt": "hi"}, ""),
}
LIMITS = {"n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens"}


async def asked_of_the_child(
    make_front: MakeFront, folder: Path, call: str, stream: bool = False, **said: Any
) -> dict[str, Any]:
    """The fields that reached the child for one request that says ``said``."""
    path, body, nest = CALLS[call]
    record = folder / "asked"
    async with make_front(f"record={record}", models={"tinychat": SETTINGS}) as front:
        given = {nest: said} if nest else said
        async with front.post(path, {"model": "tinychat", "stream": stream, **body, **given}) as answer:
            await answer.read()
            assert answer.status == 200 or "infill" in path, await answer.text()
    generating = ("/completion", "/infill", "/v1/chat/completions")
    found = [line for line in map(json.loads, record.read_bytes().splitlines()) if line["path"] in generating]
    assert len(found) == 1
    body = found[0]["body"]
    return {**body, "limit": {name: body[name] for name in LIMITS if body.get(name) is not None}}


@pytest.mark.parametrize("call", CALLS)
async def test_defaults_hold_where_a_request_says_nothing(
    make_front: MakeFront, folder: Path, call: str
) -> None:
    asked = await asked_of_the_child(make_front, folder, call)
    assert (asked["temperature"], asked["top_k"], asked["stop"]) == (0.25, 11, ["END"])
    assert set(asked["limit"].values()) == {5 if call == "anthropic" else 4}


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_that_asks_for_too_much_gets_the_most_there_is(
    make_front: MakeFront, folder: Path, call: str
) -> None:
    limit = {"ollama": "num_predict", "engine": "n_predict", "upstream": "n_predict"}.get(call.split()[0])
    limit = limit or ("max_output_tokens" if "responses" in call else "max_tokens")
    asked = await asked_of_the_child(make_front, folder, call, temperature=9.5, **{limit: 4000})
    assert asked["temperature"] == 1.5
    assert set(asked["limit"].values()) == {6}
    assert asked["top_k"] == 11


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_within_the_ranges_is_heeded(make_front: MakeFront, folder: Path, call: str) -> None:
    asked = await asked_of_the_child(make_front, folder, call, stream=True, temperature=0.75)
    assert asked["temperature"] == 0.75


@pytest.mark.parametrize("call", ["openai chat", "openai completions", "engine", "upstream chat"])
async def test_no_more_answers_are_given_than_allowed(make_front: MakeFront, folder: Path, call: str) -> None:
    path, body, _ = CALLS[call]
    record = folder / "asked"
    body = {"model": "tinychat", **body, "n": 9}
    async with (
        make_front(f"record={record}", models={"tinychat": SETTINGS}) as front,
        front.post(path, body) as answer,
    ):
        await answer.read()
    assert json.loads(record.read_bytes().splitlines()[-1])["body"]["n"] == 2


async def test_other_models_requests_reach_the_child_byte_for_byte(
    make_front: MakeFront, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{ "model":"tinychat", "messages":[{"role":"user","content":"hi"}],  "max_tokens": 99999 }'
    sent: list[bytes] = []
    from llamamgr.proxy import passage

    real = passage.ask
    monkeypatch.setattr(passage, "ask", lambda *a: (sent.append(a[-1]), real(*a))[1])
    async with (
        make_front(models={"other": SETTINGS}) as front,
        front.post("/v1/chat/completions", body) as got,
    ):
        assert got.status == 200
    assert sent == [body]


async def test_settings_that_change_hold_from_the_next_request_on(front: Front, folder: Path) -> None:
    from llamamgr.core.config import parse_config

    body = {"model": "tinychat", "messages": HI, "stream": False}
    _, told = await front.whole("/api/chat", **body)
    assert told["done_reason"] == "stop"
    models = parse_config({"models": {"tinychat": {"clamps": {"max_tokens": 2}}}}).models
    front.services.config = msgspec.structs.replace(front.services.config, models=models)
    _, told = await front.whole("/api/chat", **body)
    assert (told["done_reason"], told["eval_count"]) == ("length", 2)


async def test_a_body_that_is_no_object_is_refused_under_upstream(make_front: MakeFront) -> None:
    path = "/upstream/tinychat/completion"
    async with make_front(models={"tinychat": SETTINGS}) as front, front.post(path, b"[1]") as answer:
        assert (answer.status, "JSON object" in await answer.text()) == (400, True)
