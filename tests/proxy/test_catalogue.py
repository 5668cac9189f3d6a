"""What there is and what runs."""

from __future__ import annotations

import json
from typing import Any

from tests.proxy.conftest import HI, Front, MakeFront


async def got(front: Front, path: str) -> Any:
    async with front.session.get(path) as answer:
        assert answer.status == 200
        return json.loads(await answer.read())


async def test_the_root_and_the_version_answer_get_and_head(front: Front) -> None:
    async with front.session.head("/") as answer:
        assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "17", b"")
    # Ollama's, in numbers alone, and new enough for those who ask: Copilot Chat wants 0.6.4
    version = (await got(front, "/api/version"))["version"]
    assert tuple(map(int, version.split("."))) > (0, 6, 4)
    assert (await got(front, "/api/system/status"))["version"] == "1.2.3"


async def test_health_turns_503_when_the_daemon_stops(front: Front) -> None:
    assert await got(front, "/health") == {"status": "ok"}
    front.services.stopping = True
    async with front.session.get("/health") as answer:
        assert answer.status == 503


async def test_tags_list_every_model_latest_first(front: Front) -> None:
    names = [model["name"] for model in (await got(front, "/api/tags"))["models"]]
    assert names == ["selftest:latest", "tinyembed:latest", "tinychat:latest"]


async def test_ps_lists_what_runs_with_its_expiry(front: Front) -> None:
    assert await got(front, "/api/ps") == {"models": []}
    await front.whole("/api/chat", model="tinychat", messages=HI)
    (running,) = (await got(front, "/api/ps"))["models"]
    assert (running["name"], running["context_length"], running["size"]) == ("tinychat:latest", 2048, 1000)
    assert running["expires_at"].endswith("Z")


async def test_show_names_a_missing_model_with_its_tag(front: Front) -> None:
    assert await front.whole("/api/show", model="nope") == (404, {"error": "model 'nope:latest' not found"})
    assert await front.whole("/api/show", model="bad name!") == (400, {"error": "invalid model name"})


async def test_v1_models_list_and_show_any_name(front: Front) -> None:
    listed = await got(front, "/v1/models")
    assert {card["id"] for card in listed["data"]} == {
        "selftest:latest",
        "tinychat:latest",
        "tinyembed:latest",
    }
    one = await got(front, "/v1/models/registry.ollama.ai/library/tinychat")
    assert (one["id"], one["created"]) == ("registry.ollama.ai/library/tinychat", 1_700_000_000)
    async with front.session.get("/v1/models/a/b/nope") as answer:
        error = json.loads(await answer.read())["error"]
        assert (answer.status, error["type"]) == (404, "not_found_error")
        assert error["message"] == "model 'a/b/nope:latest' not found"


async def test_an_alias_is_listed_like_a_model_and_answers_by_every_name_it_is_listed_by(
    make_front: MakeFront,
) -> None:
    models = {
        "tinychat": {"aliases": ["gpt-5-Codex", "gpt:mini", "tinyembed"]},
        "gone": {"aliases": ["nothing"]},
    }
    async with make_front(models=models) as front:
        tags = (await got(front, "/api/tags"))["models"]
        names = [model["name"] for model in tags]
        assert names == [
            "selftest:latest",
            "tinyembed:latest",
            "tinychat:latest",
            "gpt-5-Codex:latest",
            "gpt:mini",
        ]
        model, alias = tags[2], tags[3]
        assert alias == {**model, "name": "gpt-5-Codex:latest", "model": "gpt-5-Codex:latest"}
        ids = {model["id"]: model for model in (await got(front, "/v1/models"))["data"]}
        assert {"gpt-5-Codex", "gpt:mini", "tinychat:latest"} <= ids.keys()
        assert ids["gpt-5-Codex"] == {**ids["tinychat:latest"], "id": "gpt-5-Codex"}
        assert not {"nothing", "gone", "nothing:latest"} & {*ids, *names}
        for name in ("gpt-5-Codex", "gpt-5-codex:latest", "gpt:mini"):
            status, told = await front.whole("/api/chat", model=name, messages=HI)
            assert (status, told["model"]) == (200, name)
        assert (await front.whole("/api/show", model="tinyembed:latest"))[1]["capabilities"] == ["embedding"]


async def test_copilot_is_told_a_model_by_the_name_it_asked_for(front: Front) -> None:
    for agent, name in (("GitHubCopilotChat/0.30", "tinychat:latest"), ("ollama-python", None)):
        async with front.session.post(
            "/api/show", json={"model": "tinychat:latest"}, headers={"User-Agent": agent}
        ) as answer:
            assert json.loads(await answer.read())["model_info"].get("general.basename") == name
