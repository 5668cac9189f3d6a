"""What OpenAI's API has besides chats: models, completions, embeddings, reranking, transcriptions, images."""

from __future__ import annotations

import base64
import functools
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.contract.conftest import real_binary
from tests.proxy.conftest import ANSWER, Front, MakeFront
from tests.wire.streams import sse_events


@pytest.fixture
async def real_front(make_front: MakeFront, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with make_front(binary=real_binary(request)) as front:
        yield front


async def got(front: Front, path: str) -> tuple[int, Any]:
    async with front.session.get(path) as answer:
        return answer.status, json.loads(await answer.read())


async def test_models_tell_context_capabilities_and_whether_they_are_loaded(front: Front) -> None:
    await front.whole("/v1/completions", model="tinychat", prompt="hi")
    _, told = await got(front, "/v1/models")
    by_name = {model["id"]: model["meta"] for model in told["data"]}
    assert by_name["tinychat:latest"]["loaded"]
    assert not by_name["tinyembed:latest"]["loaded"]
    assert by_name["tinyembed:latest"]["capabilities"] == ["embedding"]
    assert by_name["tinychat:latest"]["context_length"] > 0


async def contexts_told(front: Front, name: str) -> set[int]:
    """As both dialects have it, in the list and by itself."""
    found: set[int] = set()
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        for path in ("/v1/models", f"/v1/models/{name}"):
            async with front.session.get(path, headers=headers) as answer:
                told = json.loads(await answer.read())
            card = next(one for one in told.get("data", [told]) if one["id"] == name)
            found |= {card["max_input_tokens"], card["max_tokens"]} if headers else set()
            found |= set() if headers else {card["meta"]["context_length"]}
    return found


async def test_the_context_that_models_tell_is_what_a_request_gets(make_front: MakeFront) -> None:
    async with make_front(models={"tinychat": {"context": 1024}}) as front:
        assert await contexts_told(front, "tinychat:latest") == {1024}
        assert await contexts_told(front, "tinyembed:latest") == {512}, "all it was trained for"
        front.services.config = msgspec.structs.replace(front.services.config, models={})
        assert await contexts_told(front, "tinychat:latest") == {2048}
        front.services.config = msgspec.structs.replace(front.services.config, context=256)
        assert await contexts_told(front, "tinychat:latest") == {256}
        await front.whole("/v1/completions", model="tinychat", prompt="hi")
        assert await contexts_told(front, "tinychat:latest") == {2048}, "the child has it"
        front.children.running["tinychat:latest"].context = 128
        assert await contexts_told(front, "tinychat:latest") == {256}, "one with less would not be used"


async def test_a_model_is_found_by_a_name_with_slashes_and_told_under_it(front: Front) -> None:
    status, told = await got(front, "/v1/models/registry.ollama.ai/library/tinychat:latest")
    assert (status, told["id"]) == (200, "registry.ollama.ai/library/tinychat:latest")
    status, told = await got(front, "/v1/models/org/nope")
    assert (status, told["error"]["code"]) == (404, "model_not_found")


async def test_images_are_a_clear_501(front: Front) -> None:
    for path in ("/v1/images/generations", "/v1/images"):
        async with front.post(path, {"prompt": "a cat"}) as answer:
            told = json.loads(await answer.read())["error"]
            assert (answer.status, "images are not made here" in told["message"]) == (501, True)


async def test_a_completion_streams_and_is_whole(front: Front) -> None:
    status, whole = await front.whole("/v1/completions", model="tinychat", prompt="hi", echo=True)
    assert (status, whole["choices"][0]["text"]) == (200, "hi" + ANSWER)
    async with front.post("/v1/completions", {"model": "tinychat", "prompt": "hi", "stream": True}) as answer:
        events = [data for _, data in sse_events(await answer.read())]
    assert events.pop() == b"[DONE]"
    assert "".join(json.loads(data)["choices"][0]["text"] for data in events) == ANSWER


@pytest.mark.real
async def test_prompts_of_tokens_and_texts_are_answered_together(real_front: Front) -> None:
    body = {"model": "tinychat", "prompt": [[107, 108], [107]], "n": 2, "max_tokens": 2, "echo": True}
    status, whole = await real_front.whole("/v1/completions", **body)
    assert status == 200, whole
    assert [choice["text"] for choice in whole["choices"]] == ["hiHello from"] * 2 + ["hHello from"] * 2
    assert whole["usage"]["completion_tokens"] == 8
    assert len(real_front.children.granted) == 1


@pytest.mark.real
async def test_a_suffix_needs_a_model_that_fills_in(real_front: Front) -> None:
    status, told = await real_front.whole("/v1/completions", model="tinychat", prompt="a", suffix="b")
    assert (status, told["error"]["param"]) == (400, "suffix")
    assert told["error"]["message"] == "registry.ollama.ai/library/tinychat:latest does not support insert"


@pytest.mark.real
async def test_embeddings_of_texts_and_tokens_in_numbers_and_base64(real_front: Front) -> None:
    ask = {"model": "tinyembed", "input": ["hello", "a"]}
    _, plain = await real_front.whole("/v1/embeddings", **ask)
    _, packed = await real_front.whole("/v1/embeddings", **ask, encoding_format="base64")
    for row, other in zip(plain["data"], packed["data"], strict=True):
        raw = base64.b64decode(other["embedding"])
        assert struct.unpack(f"<{len(raw) // 4}f", raw) == pytest.approx(row["embedding"])
    _, short = await real_front.whole("/v1/embeddings", **ask, dimensions=110)
    assert [len(row["embedding"]) for row in short["data"]] == [110, 110]
    assert sum(number**2 for number in short["data"][0]["embedding"]) == pytest.approx(1)
    _, tokens = await real_front.whole("/v1/embeddings", model="tinyembed", input=[[1, 2], [3]])
    assert (len(tokens["data"]), tokens["usage"]["prompt_tokens"]) == (2, 3)


@pytest.mark.real
async def test_an_input_that_is_too_long_is_cut_for_ollama_and_refused_for_openai(real_front: Front) -> None:
    long = "a" * 5000
    status, told = await real_front.whole("/api/embed", model="tinyembed", input=["b", long])
    assert (status, len(told["embeddings"])) == (200, 2)
    assert told["prompt_eval_count"] <= 2 * 2048
    status, told = await real_front.whole("/api/embed", model="tinyembed", input=long, truncate=False)
    assert (status, told["error"]) == (400, "the input length exceeds the context length")
    status, told = await real_front.whole("/v1/embeddings", model="tinyembed", input=long)
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
    status, told = await real_front.whole("/api/embeddings", model="tinyembed", prompt=long)
    assert (status, told["error"]) == (400, "the input length exceeds the context length")


@pytest.mark.real
async def test_inputs_are_cut_where_ollama_cuts_them(real_front: Front) -> None:
    """Two tokens less than the context, or than the smaller one that was asked for; the fixture's context is 512 tokens."""
    count: Callable[..., Any] = functools.partial(real_front.whole, "/api/embed", model="tinyembed")
    _, most = await count(input="a" * 510)
    for size in (511, 512, 600):
        _, told = await count(input="a" * size)
        assert (told["prompt_eval_count"], told["embeddings"]) == (510, most["embeddings"])
        status, told = await count(input="a" * size, truncate=False)
        assert (status, told["error"]) == (400, "the input length exceeds the context length")
    assert (await count(input="a" * 510, truncate=False))[0] == 200
    _, told = await count(input=["a" * 9, "b"], options={"num_ctx": 8})
    assert told["prompt_eval_count"] == 6 + 1
    assert (await count(input="a" * 9, options={"num_ctx": 8}, truncate=False))[0] == 400
    _, told = await count(input="a" * 9, options={"num_ctx": 1})
    assert told["prompt_eval_count"] == 4 - 2, "no context is smaller than 4"
    status, told = await real_front.whole("/v1/embeddings", model="tinyembed", input="a" * 512)
    assert (status, told["usage"]["prompt_tokens"]) == (200, 512), "OpenAI's clients get all that fits"


async def test_a_model_that_embeds_nothing_says_so_without_a_load(front: Front) -> None:
    for path, field in (("/v1/embeddings", "input"), ("/api/embed", "input"), ("/api/embeddings", "prompt")):
        status, told = await front.whole(path, model="tinychat", **{field: "a"})
        message = told["error"] if isinstance(told["error"], str) else told["error"]["message"]
        told = "This server does not support embeddings. Start it with `--embeddings`"
        assert (status, message) == (501, told)
    assert front.children.granted == []


async def test_a_model_to_embed_with_that_is_not_here_is_told_alike_everywhere(front: Front) -> None:
    for path in ("/v1/embeddings", "/api/embed", "/api/embeddings"):
        status, told = await front.whole(path, model="nope", input="a", prompt="a")
        message = told["error"] if isinstance(told["error"], str) else told["error"]["message"]
        assert (status, message) == (404, 'model "nope" not found, try pulling it first')


async def test_no_input_loads_any_model_and_is_an_answer_without_vectors(front: Front) -> None:
    for model in ("tinychat", "tinyembed"):
        for body in ({}, {"input": ""}, {"input": []}, {"input": None}):
            told = await front.whole("/api/embed", model=model, **body)
            assert told == (200, {"model": model, "embeddings": []})
        for body in ({}, {"prompt": ""}):
            assert await front.whole("/api/embeddings", model=model, **body) == (200, {"embedding": []})
    assert {granted[0].name for granted in front.children.granted} == {"tinychat:latest", "tinyembed:latest"}


def as_ranker(front: Front, monkeypatch: pytest.MonkeyPatch, arch: str = "bert") -> None:
    """Give tinyembed out as a model that ranks: no file so small is one."""
    index = front.services.index
    listing = index.refresh()
    ranker = msgspec.structs.replace(index.resolve("tinyembed"), capabilities=("rerank",), arch=arch)
    models = tuple(ranker if card.name == ranker.name else card for card in listing.models)
    monkeypatch.setattr(index, "listing", lambda: msgspec.structs.replace(listing, models=models))
    monkeypatch.setattr(index, "recall", lambda name: ranker if name == "tinyembed" else None)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking"])
async def test_documents_are_ranked(front: Front, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    as_ranker(front, monkeypatch)
    status, told = await front.whole(
        path, model="tinyembed", query="red fox", documents=["a cow", "red fox", "fox"]
    )
    assert status == 200
    assert [row["index"] for row in told["results"]] == [1, 2, 0]


async def test_teis_form_finds_the_only_model_that_ranks(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_ranker(front, monkeypatch)
    status, told = await front.whole("/rerank", query="red fox", texts=["a cow", "red fox"])
    assert (status, [row["index"] for row in told]) == (200, [1, 0])


@pytest.mark.parametrize(("arch", "is_told"), [("bert", False), ("qwen3", True)])
async def test_teis_scores_are_the_engines_where_it_tells_probabilities(
    front: Front, monkeypatch: pytest.MonkeyPatch, arch: str, is_told: bool
) -> None:
    as_ranker(front, monkeypatch, arch)
    asked: dict[str, Any] = {"query": "red fox", "texts": ["a cow", "red fox"]}
    _, raw = await front.whole("/rerank", **asked, raw_scores=True)
    _, told = await front.whole("/rerank", **asked)
    assert (told == raw) == is_told


async def test_without_a_model_that_ranks_the_answer_says_so(front: Front) -> None:
    status, told = await front.whole("/rerank", query="q", texts=["a"])
    assert (status, "0 models can rerank" in told["error"]["message"]) == (400, True)
    status, told = await front.whole("/v1/rerank", model="tinychat", query="q", documents=["a"])
    assert (status, told["error"]["message"]) == (501, '"tinychat" is no reranking model')


def form(**fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in fields.items():
        data.add_field(name, value)
    data.add_field("file", b"RIFFxxxxWAVE", filename="a.wav", content_type="audio/wav")
    return data


async def test_a_transcription_needs_a_model_that_hears(front: Front) -> None:
    for fields, status, message in (
        ({"model": "tinychat"}, 400, '"tinychat" does not support audio'),
        ({}, 400, "model is required"),
        ({"model": "tinychat", "response_format": "srt"}, 400, "response_format 'srt' is not served"),
    ):
        async with front.session.post("/v1/audio/transcriptions", data=form(**fields)) as answer:
            told = json.loads(await answer.read())["error"]["message"]
            assert (answer.status, told.startswith(message)) == (status, True), told


async def test_a_form_passes_to_a_model_that_hears(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    index = front.services.index
    hearing = msgspec.structs.replace(index.resolve("tinychat"), capabilities=("completion", "audio"))
    monkeypatch.setattr(index, "recall", lambda name: hearing)
    async with front.session.post("/v1/audio/transcriptions", data=form(model="tinychat")) as answer:
        # the fake does not hear: its own refusal shows that it was asked
        assert answer.status == 404
        assert json.loads(await answer.read())["error"]["message"] == "File Not Found"
