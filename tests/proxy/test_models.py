"""Models made, copied, deleted and pulled over HTTP, and how a made one answers."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from llamamgr.core.config import RegistryConfig
from llamamgr.core.errors import BusyError, SourceUnreachableError
from llamamgr.models.progress import SUCCESS, Progress, Tell
from llamamgr.models.pull import Puller, Wish
from llamamgr.proxy.making import Makers
from llamamgr.proxy.transfers import Transfers
from tests.contract.conftest import real_binary
from tests.fakes import registry
from tests.fakes.registry import FakeRegistry
from tests.golden import replay
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront

TINY = (replay.MODELS / "tinychat.gguf").read_bytes()
DIGEST = f"sha256:{hashlib.sha256(TINY).hexdigest()}"
LIKE_ITS_OWN = (
    "{{ range .Messages }}{{ if eq .Role `assistant` }}<|assistant|>{{ .Content }}</s>"
    "{{ else }}<|{{ .Role }}|>{{ .Content }}</s>{{ end }}{{ end }}<|assistant|>"
)
WITH_TOOLS = (
    "{{ if .Tools }}<|system|>{{ .Tools }}</s>{{ end }}{{ range .Messages }}{{ if .ToolCalls }}<tool_call>"
    '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}{{ else }}<|user|>{{ .Content }}</s>{{ end }}{{ end }}'
    "{{ if .Tools }}<|assistant_tools|>{{ else }}<|assistant|>{{ end }}"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with registry.running() as fake:
        yield fake


@pytest.fixture
async def front(make_front: MakeFront, fake: FakeRegistry) -> AsyncIterator[Front]:
    async with make_front(registry=RegistryConfig(ollama=fake.url, hub=fake.url)) as front:
        yield front


@pytest.fixture
async def real(make_front: MakeFront, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with make_front(binary=real_binary(request)) as front:
        yield front


async def made(front: Front, name: str, **body: Any) -> None:
    lines = await front.lines("/api/create", model=name, **body)
    assert lines[-1] == {"status": "success"}, lines


async def removed(front: Front, name: str) -> tuple[int, bytes]:
    async with front.session.delete("/api/delete", data=json.dumps({"model": name})) as answer:
        return answer.status, await answer.read()


async def listed(front: Front) -> set[str]:
    async with front.session.get("/api/tags") as answer:
        return {model["name"] for model in json.loads(await answer.read())["models"]}


async def test_a_made_model_is_listed_shown_copied_and_deleted_by_the_same_name(front: Front) -> None:
    await made(front, "mine:v1", **{"from": "tinychat"}, system="S", parameters={"stop": ["X"]})
    assert "mine:v1" in await listed(front)
    status, shown = await front.whole("/api/show", model="MINE:v1")
    assert (status, shown["system"], shown["details"]["parent_model"]) == (200, "S", "tinychat:latest")
    async with front.post("/api/copy", {"source": "mine:v1", "destination": "other"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert await removed(front, "mine:v1") == (200, b"")
    assert await removed(front, "mine:v1") == (404, b'{"error":"model \'mine:v1\' not found"}')
    status, shown = await front.whole("/api/show", model="other")
    assert (status, shown["system"]) == (200, "S")
    async with front.session.get("/api/tags") as answer:
        models = {model["name"]: model["digest"] for model in json.loads(await answer.read())["models"]}
    assert len(models["other:latest"]) == 64 and models["other:latest"] != models["tinychat:latest"]


async def test_a_name_without_a_tag_deletes_no_other_tag(front: Front) -> None:
    await made(front, "mine:v1", **{"from": "tinychat"})
    assert (await front.whole("/api/chat", model="mine", messages=HI))[0] == 200
    assert await removed(front, "mine") == (404, b'{"error":"model \'mine\' not found"}')
    assert "mine:v1" in await listed(front)


async def test_names_that_are_none_are_quoted_as_go_quotes_them(front: Front) -> None:
    for source, destination, wanted in (
        ('a"b', "z", r'source "a\"b" is invalid'),
        ("tinychat", "z\u00a0", r'destination "z\u00a0" is invalid'),
        ("nope", "z", 'model "nope" not found'),
    ):
        status, answer = await front.whole("/api/copy", source=source, destination=destination)
        assert (status, answer["error"]) == (404 if "found" in wanted else 400, wanted)
    status, told = await removed(front, "a\tb")
    assert (status, json.loads(told)["error"]) == (400, r'name "a\tb" is invalid')


async def test_blanks_around_a_name_are_none_of_it(front: Front) -> None:
    for path in ("/api/generate", "/api/chat", "/api/show", "/v1/chat/completions"):
        body = {"model": " tinychat ", "messages": HI, "prompt": "hi"}
        assert (await front.whole(path, **body))[0] == 200, path
    for name, status in ((" nosuch ", 404), (" nosuch-cloud ", 403)):
        assert (await front.whole("/api/chat", model=name, messages=HI))[0] == status
    assert await front.whole("/api/generate", model="  ") == (404, {"error": "model '  ' not found"})
    assert await front.whole("/api/embed", model="  ") == (404, {"error": "model '  ' not found"})
    for path in ("/api/chat", "/api/show", "/api/embeddings"):
        assert await front.whole(path, model="  ") == (400, {"error": "model is required"})
    assert await front.whole("/api/embed", model="bad name!", input=5) == (
        400,
        {"error": "invalid model name"},
    )


async def test_what_runs_by_the_name_of_a_deleted_model_goes_though_another_shares_its_file(
    front: Front,
) -> None:
    await made(front, "mine", **{"from": "tinychat"}, system="S")
    for name in ("mine", "tinychat"):
        assert (await front.lines("/api/chat", model=name, messages=HI))[-1]["done"]
    assert await removed(front, "mine") == (200, b"")
    assert list(front.children.running) == ["tinychat:latest"]


async def test_a_model_copied_onto_itself_stays_as_it_is(front: Front) -> None:
    for destination in ("tinychat", "TinyChat:latest", "registry.ollama.ai/library/tinychat"):
        async with front.post("/api/copy", {"source": "tinychat", "destination": destination}) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    listing = front.services.index.refresh()
    assert [card.name for card in listing.models if "tinychat" in card.name.lower()] == ["tinychat:latest"]


async def test_files_that_are_none_have_no_known_type(front: Front) -> None:
    assert await front.whole("/api/create", model="x", files={}) == (400, {"error": "unknown type"})


async def test_a_file_in_place_is_not_deleted_by_a_client(front: Front) -> None:
    status, body = await removed(front, "tinychat")
    assert (status, b"its file stays" in body) == (403, True)
    assert "tinychat:latest" in await listed(front)


async def test_an_uploaded_blob_becomes_a_model(front: Front) -> None:
    async with front.session.post(f"/api/blobs/{DIGEST}", data=io.BytesIO(TINY)) as answer:
        assert answer.status == 201
    async with front.session.post(f"/api/blobs/{DIGEST}", data=b"") as answer:
        assert answer.status == 200
    lines = await front.lines("/api/create", model="up", files={"a.gguf": DIGEST})
    assert lines[:2] == [{"status": "parsing GGUF"}, {"status": f"using existing layer {DIGEST}"}]
    status, answered = await front.whole("/api/chat", model="up", messages=HI)
    assert (status, answered["message"]["content"]) == (200, ANSWER)


async def test_a_broken_upload_leaves_nothing(front: Front) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield TINY[:5000]
        raise RuntimeError("the client breaks off")

    with pytest.raises(Exception, match="breaks off"):
        await front.session.post(f"/api/blobs/{DIGEST}", data=half())
    async with front.session.post(f"/api/blobs/{DIGEST}", data=io.BytesIO(TINY[:-1])) as answer:
        assert (answer.status, b"digest mismatch, expected" in await answer.read()) == (400, True)
    folder = front.services.index.store.root / "blobs"
    async with asyncio.timeout(5):
        while list(folder.iterdir()):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"template": "{{ .Prompt"}, "template error: template: :1: unclosed action"),
        (
            {"template": "{{ .Prompt | html }}"},
            'template error: template: the function "html" is not supported here',
        ),
        ({"parameters": {"temperature": "hot"}}, 'option "temperature" must be of type float32'),
        ({"parameters": {"tempr": 1}}, "unknown parameter 'tempr'"),
        (
            {"parameters": []},
            "json: cannot unmarshal array into Go struct field CreateRequest.parameters of type map[string]interface {}",
        ),
        ({"quantize": "Q4_K_M"}, "there is nothing here that quantizes"),
    ],
)
async def test_what_cannot_be_made_is_refused(front: Front, body: dict[str, Any], message: str) -> None:
    status, answer = await front.whole("/api/create", model="x", **{"from": "tinychat", **body})
    assert (status, answer) == (400, {"error": message})
    assert "x:latest" not in await listed(front)


async def test_an_old_clients_modelfile_is_understood(front: Front) -> None:
    await made(front, "old", modelfile='FROM tinychat\nSYSTEM """two\nlines"""\nPARAMETER seed 7')
    shown = (await front.whole("/api/show", model="old"))[1]
    assert (shown["system"], shown["parameters"]) == ("two\nlines", "seed                           7")


async def test_a_model_of_one_that_is_not_here_pulls_it_first(front: Front, fake: FakeRegistry) -> None:
    fake.add_model("library/base", "latest", model=TINY, system=b"from afar")
    lines = await front.lines("/api/create", model="derived", **{"from": "base"}, parameters={"seed": 1})
    words = [line["status"].split("sha256:")[0] for line in lines]
    assert words[0] == "pulling manifest" and words.count("success") == 1
    assert (await front.whole("/api/show", model="derived"))[1]["system"] == "from afar"


async def test_a_pull_is_streamed_or_answered_at_its_end(front: Front, fake: FakeRegistry) -> None:
    fake.add_model("library/tiny", "latest", model=TINY)
    lines = await front.lines("/api/pull", name="tiny")
    assert lines[0] == {"status": "pulling manifest"} and lines[-1] == {"status": "success"}
    assert {
        "status": f"pulling {DIGEST[7:19]}",
        "digest": DIGEST,
        "total": len(TINY),
        "completed": len(TINY),
    } in lines
    assert await front.whole("/api/pull", model="tiny") == (200, {"status": "success"})
    status, answered = await front.whole("/api/chat", model="tiny", messages=HI)
    assert (status, answered["message"]["content"]) == (200, ANSWER)


async def test_a_pull_of_what_is_here_by_other_means_than_a_pull_succeeds_and_asks_nobody(
    make_front: MakeFront, fake: FakeRegistry
) -> None:
    models = {"tinychat": {"aliases": ["gpt-5-codex"]}}
    fake.add_model("library/tinyembed", "f16", model=TINY)
    async with make_front(registry=RegistryConfig(ollama=fake.url, hub=fake.url), models=models) as front:
        for name in ("tinychat", "TinyChat:latest", "selftest", "gpt-5-codex", "gpt-5-codex:latest"):
            assert await front.lines("/api/pull", model=name) == [{"status": "success"}]
            assert await front.whole("/api/pull", model=name) == (200, {"status": "success"})
        assert fake.requests == []
        lines = await front.lines("/api/pull", model="tinyembed:f16")  # here it is only with another tag
        assert (lines[0], lines[-1]) == ({"status": "pulling manifest"}, {"status": "success"})
        asked = len(fake.requests)
        assert (await front.lines("/api/pull", model="tinyembed:f16"))[-1] == {"status": "success"}
        assert len(fake.requests) > asked, "what was pulled is brought up to date"


async def test_a_pull_of_what_is_not_there_says_so(front: Front) -> None:
    lines = await front.lines("/api/pull", model="nope")
    assert lines == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    assert await front.whole("/api/pull", model="nope") == (
        404,
        {"error": "pull model manifest: file does not exist"},
    )
    assert await front.whole("/api/pull") == (400, {"error": "invalid model name"})


async def test_two_who_pull_one_model_share_it_and_it_ends_with_the_last(
    front: Front, fake: FakeRegistry
) -> None:
    fake.add_model("library/tiny", "latest", model=TINY)
    fake.hold = threading.Event()
    first = front.session.post("/api/pull", data='{"model":"tiny"}')
    second = front.session.post("/api/pull", data='{"model":"tiny"}')
    one, two = await first, await second
    assert await asyncio.to_thread(fake.held.wait, 10)
    one.close()  # leaves; the other goes on
    fake.hold.set()
    assert (await two.read()).splitlines()[-1] == b'{"status":"success"}'
    assert len(fake.asked("/blobs/sha256:" + DIGEST[7:])) == 1


async def test_a_pull_that_everybody_left_stops(front: Front, fake: FakeRegistry) -> None:
    fake.add_model("library/tiny", "latest", model=TINY)
    fake.hold = threading.Event()
    answer = await front.session.post("/api/pull", data='{"model":"tiny"}')
    assert await asyncio.to_thread(fake.held.wait, 10)
    answer.close()
    async with asyncio.timeout(5):
        while front.services.transfers.underway:
            await asyncio.sleep(0.005)
    assert front.services.index.store.entries() == []
    fake.hold.set()
    fake.hold = None
    assert (await front.lines("/api/pull", model="tiny"))[-1] == {"status": "success"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"files": {"../a": "sha256:x"}}, "file path must be relative"),
        ({"files": {"a": ""}}, "invalid digest format"),
        ({"adapters": {"a": ""}}, "invalid digest format"),
        ({"draft_files": {"/a": "x"}}, "file path must be relative"),
        ({"draft_files": {"a": ""}}, "invalid digest format"),
        ({"draft_quantize": "q8_0"}, "--draft-quantize requires a DRAFT model"),
        ({"draft_files": {"a": "x"}, "draft_quantize": "q8_0"}, "a model has no draft of its own here"),
    ],
)
async def test_what_cannot_be_made_is_refused_before_anything_is_done(
    front: Front, more: dict[str, Any], told: str
) -> None:
    status, answer = await front.whole("/api/create", model="m", **{"from": "tinychat"}, **more)
    assert (status, answer["error"].startswith(told)) == (400, True)


async def test_a_pull_that_is_over_is_begun_anew_though_somebody_has_not_read_its_end() -> None:
    class Failing(Puller):
        pulls = 0

        def __init__(self) -> None:
            pass

        async def pull(self, wish: Wish, tell: Tell) -> None:
            self.pulls += 1
            tell(Progress("pulling manifest"))
            if self.pulls == 1:
                raise SourceUnreachableError("the network was away", "")
            tell(SUCCESS)

    transfers, wish = Transfers(), Wish("m")
    async with transfers.open(Failing()):
        slow = transfers.pull(wish)
        assert (await anext(slow)).status == "pulling manifest"
        async with asyncio.timeout(5):
            while transfers.underway:
                await asyncio.sleep(0)
        assert [step async for step in transfers.pull(wish)][-1] == SUCCESS
        with pytest.raises(SourceUnreachableError):
            await anext(slow)


async def test_what_makes_models_for_long_keeps_no_thread_from_others_and_has_a_limit() -> None:
    makers, go_on, loop = Makers(at_once=1, waiting=1), threading.Event(), asyncio.get_running_loop()
    made: list[int] = []

    def work(number: int, tell: Tell) -> None:
        tell(Progress(f"making {number}"))
        assert go_on.wait(10)
        made.append(number)

    async with makers.open():
        first, second, left = (makers.make(functools.partial(work, number)) for number in (1, 2, 3))
        assert (await anext(first)).status == "making 1"
        assert (await anext(second)).status == "waiting for other models to be made"
        with pytest.raises(BusyError, match="2 models are being made already"):
            await anext(makers.make(functools.partial(work, 4)))
        await second.aclose()  # its client has left while it waited
        assert (await anext(left)).status.startswith("waiting")
        assert await loop.run_in_executor(None, go_on.set) is None
        assert [step async for step in first] == []
        assert [step.status async for step in left] == ["making 3"]
    assert made == [1, 3]


async def test_push_and_status_are_clear(front: Front) -> None:
    status, answer = await front.whole("/api/push", model="tinychat")
    assert (status, "not pushed from here" in answer["error"]) == (501, True)
    assert await front.whole("/api/push") == (400, {"error": "model is required"})
    async with front.session.get("/api/status") as told:
        assert json.loads(await told.read()) == {"cloud": {"disabled": True, "source": "config"}}


async def test_a_cloud_model_is_refused_as_such(front: Front) -> None:
    status, answer = await front.whole("/api/chat", model="gpt-oss:120b-cloud", messages=HI)
    assert (status, answer) == (403, {"error": "ollama cloud is disabled: remote model is unavailable"})
    status, answer = await front.whole("/api/show", model="gpt-oss:cloud")
    assert (status, "remote model details are unavailable" in answer["error"]) == (403, True)
    status, answer = await front.whole("/api/embed", model="nope:cloud", input="x")
    assert (status, answer["error"]) == (403, "ollama cloud is disabled: remote model is unavailable")
    status, answer = await front.whole("/v1/embeddings", model="nope-cloud", input="x")
    assert (status, answer["error"]["message"]) == (
        403,
        "ollama cloud is disabled: remote model is unavailable",
    )
    assert await front.whole("/api/show", model="hf:o/r:Q4") == (
        404,
        {"error": "model 'hf.co/o/r:Q4' not found"},
    )


@pytest.mark.real
async def test_parameters_of_the_model_hold_where_the_request_says_nothing(real: Front) -> None:
    await made(real, "m", **{"from": "tinychat"}, parameters={"stop": [" tiny"], "num_ctx": 512})
    ask = {"model": "m", "messages": HI}
    assert (await real.whole("/api/chat", **ask))[1]["message"]["content"] == "Hello from the"
    over = await real.whole("/api/chat", **ask, options={"stop": [" llama"]})
    assert over[1]["message"]["content"] == "Hello from the tiny"
    raw = await real.whole("/api/generate", model="m", prompt="<|user|>hi</s><|assistant|>", raw=True)
    assert raw[1]["response"] == "Hello from the"
    assert real.children.granted[0][1].context == 512


@pytest.mark.real
async def test_system_and_messages_of_the_model_begin_the_conversation(real: Front) -> None:
    await made(
        real,
        "m",
        **{"from": "tinychat"},
        system="sys",
        messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    )

    async def tokens(model: str, path: str = "/api/chat", **body: Any) -> int:
        count = (await real.whole(path, model=model, **body))[1]["prompt_eval_count"]
        assert isinstance(count, int)
        return count

    spelt = [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        *HI,
    ]
    assert await tokens("m", messages=HI) == await tokens("tinychat", messages=spelt)
    own = [{"role": "system", "content": "mine!"}, *HI]
    assert await tokens("m", messages=own) == await tokens("tinychat", messages=[*spelt[1:3], *own])
    assert await tokens("m", "/api/generate", prompt="hi") == await tokens("tinychat", messages=spelt)


@pytest.mark.real
async def test_a_go_template_makes_the_prompt_that_the_files_own_makes(real: Front) -> None:
    await made(real, "m", **{"from": "tinychat"}, template=LIKE_ITS_OWN)
    for body in ({"messages": HI}, {"messages": [{"role": "system", "content": "s"}, *HI]}):
        plain = (await real.whole("/api/chat", model="tinychat", **body))[1]
        templated = (await real.whole("/api/chat", model="m", **body))[1]
        assert templated["message"] == plain["message"]
        assert templated["prompt_eval_count"] == plain["prompt_eval_count"]
    plain = (await real.whole("/api/generate", model="tinychat", prompt="hi"))[1]
    again = (await real.whole("/api/generate", model="tinychat", prompt="hi", template=LIKE_ITS_OWN))[1]
    assert (again["response"], again["context"]) == (plain["response"], plain["context"])
    lines = await real.lines("/api/chat", model="m", messages=HI)
    assert "".join(line["message"]["content"] for line in lines) == ANSWER and len(lines) > 2


@pytest.mark.real
async def test_a_go_template_offers_tools_and_its_calls_are_found(real: Front) -> None:
    await made(real, "m", **{"from": "tinychat"}, template=WITH_TOOLS)
    for stream in (False, True):
        body = {"model": "m", "messages": HI, "tools": [TOOL]}
        answer = (
            (await real.lines("/api/chat", **body))
            if stream
            else [(await real.whole("/api/chat", **body))[1]]
        )
        (call,) = answer[-2 if stream else -1]["message"]["tool_calls"]
        assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}
        assert (answer[-1]["message"]["content"], answer[-1]["done_reason"]) == ("", "stop")


@pytest.mark.real
async def test_a_suffix_is_filled_in_by_the_template_or_refused(real: Front) -> None:
    status, answer = await real.whole("/api/generate", model="tinychat", prompt="a", suffix="b")
    assert (status, answer["error"]) == (
        400,
        "registry.ollama.ai/library/tinychat:latest does not support insert",
    )
    await made(
        real, "m", **{"from": "tinychat"}, template="{{ .Suffix }}<|user|>{{ .Prompt }}</s><|assistant|>"
    )
    status, answer = await real.whole("/api/generate", model="m", prompt="a", suffix="b")
    assert (status, answer["response"]) == (200, ANSWER)
    status, answer = await real.whole("/v1/completions", model="m", prompt="a", suffix="b")
    assert (status, answer["choices"][0]["text"]) == (200, ANSWER)


@pytest.mark.real
async def test_a_base_and_what_is_made_of_it_share_a_child(real: Front) -> None:
    await made(real, "m", **{"from": "tinychat"}, system="s")
    cards = [real.services.index.resolve(name) for name in ("m", "tinychat")]
    assert cards[0].digest == cards[1].digest
