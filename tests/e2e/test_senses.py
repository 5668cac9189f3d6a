"""Images, sounds, rankings and gaps on a real llama-server: what the engine was given can be told from what it says."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.e2e.conftest import Daemon
from tests.fakes import sensing_models as models
from tests.fakes.sensing_models import FILLED, HEARD, IMAGE_TOKENS, LLAMA, NOTHING, picture, sound

pytestmark = pytest.mark.real
TEMPLATE = "{{ range .Messages }}<|user|>{{ .Content }}</s>{{ end }}<|assistant|>"
SEER, BY_TEMPLATE = "sensing", "by-template"
COLOURS = tuple(models.SEEN)
TOOL: Any = {"name": "look", "input_schema": {"type": "object"}}


@pytest.fixture
def url(home_with_models: Any) -> Iterator[str]:
    """The address of a daemon over the models that sense; ``BY_TEMPLATE`` is one of them with a Go template."""
    folder = home_with_models / "gguf"
    models.write_sensing(folder)
    models.write_ranking(folder)
    models.write_filling(folder)
    daemon = Daemon(home_with_models)
    try:
        daemon.post(
            "/api/create", {"model": BY_TEMPLATE, "from": SEER, "template": TEMPLATE, "stream": False}
        )
        yield daemon.url
    finally:
        daemon.stop()


@pytest.fixture
def native(url: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=url)
    yield client
    client._client.close()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def post(url: str, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def address(colour: str) -> str:
    return f"data:image/png;base64,{encoded(picture(colour))}"


def source(colour: str) -> Any:
    data = encoded(picture(colour))
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def test_what_models_sense_is_told(url: str, native: ollama.Client, client: openai.OpenAI) -> None:
    told = {name: native.show(name).capabilities for name in (SEER, BY_TEMPLATE, "ranking", "filling")}
    assert told == {
        SEER: ["completion", "insert", "vision", "audio"],  # all have the tokens of the last one
        BY_TEMPLATE: ["completion", "insert", "vision", "audio"],
        "ranking": ["rerank"],
        "filling": ["completion", "insert"],
    }
    listed = {model.id: model.model_dump()["meta"]["capabilities"] for model in client.models.list()}
    assert "vision" in listed["sensing:latest"]


@pytest.mark.parametrize("model", [SEER, BY_TEMPLATE])
def test_ollamas_images_are_seen(native: ollama.Client, model: str) -> None:
    for colour in COLOURS:
        ask = [{"role": "user", "content": "what?", "images": [picture(colour)]}]
        assert (native.chat(model, ask).message.content or "").strip() == colour
        streamed = native.generate(model, "what?", images=[picture(colour)], stream=True)
        assert "".join(part.response for part in streamed).strip() == colour
    assert (
        native.chat(model, [{"role": "user", "content": "what?"}]).message.content or ""
    ).strip() == NOTHING
    most = [picture("blue"), picture("red"), picture("red")]
    several = native.generate(model, "what?", images=most)
    one = native.generate(model, "what?", images=most[:1])
    assert several.response.strip() == "red"
    assert (several.prompt_eval_count or 0) - (one.prompt_eval_count or 0) == 2 * IMAGE_TOKENS


@pytest.mark.parametrize("model", [SEER, BY_TEMPLATE])
def test_an_image_of_an_earlier_turn_stays_in_the_conversation(native: ollama.Client, model: str) -> None:
    turns = [
        {"role": "user", "content": "what?", "images": [picture("green")]},
        {"role": "assistant", "content": "green"},
        {"role": "user", "content": "and [img]?", "images": [picture("blue"), picture("blue")]},
    ]
    assert (native.chat(model, turns[:1]).message.content or "").strip() == "green"
    assert (native.chat(model, turns).message.content or "").strip() == "blue"


def test_a_prompt_of_ones_own_making_has_images_where_it_says_so(native: ollama.Client) -> None:
    for prompt in ("<|user|>[img-0]what?</s><|assistant|>", "<|user|>what?</s><|assistant|>"):
        told = native.generate(SEER, prompt, images=[picture("red")], raw=True)
        assert told.response.strip() == "red"
    by_request = native.generate(
        SEER, "what?", images=[picture("blue")], template="<|user|>{{ .Prompt }}</s><|assistant|>"
    )
    assert by_request.response.strip() == "blue"


@pytest.mark.parametrize(
    ("model", "prompt"),
    [
        (SEER, "<|user|>what?[img-0]</s><|assistant|>"),
        (BY_TEMPLATE, "<|user|>[img-0]what?</s><|assistant|>"),
    ],
)
def test_a_prompt_that_is_shown_can_be_asked_as_it_is(url: str, model: str, prompt: str) -> None:
    body = {"model": model, "prompt": "what?", "images": [encoded(picture("green"))], "stream": False}
    status, shown = post(url, "/api/generate", {**body, "_debug_render_only": True})
    assert (status, shown["_debug_info"]) == (200, {"rendered_template": prompt, "image_count": 1})
    _, answered = post(url, "/api/generate", {**body, "model": SEER, "prompt": prompt, "raw": True})
    assert answered["response"].strip() == "green"


def test_a_context_is_gone_on_from_with_an_image(native: ollama.Client) -> None:
    before = native.generate(SEER, "hello")
    assert before.context
    after = native.generate(SEER, "what?", images=[picture("red")], context=before.context)
    assert after.response.strip() == "red"


@pytest.mark.parametrize("model", [SEER, BY_TEMPLATE])
def test_openais_images_are_seen(client: openai.OpenAI, model: str) -> None:
    for url in ({"url": address("red"), "detail": "low"}, address("red")):  # the bare text is Ollama's form
        content: Any = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": url}]
        ask: Any = [{"role": "user", "content": content}]
        whole = client.chat.completions.create(model=model, messages=ask)
        assert (whole.choices[0].message.content or "").strip() == "red"
        chunks = client.chat.completions.create(model=model, messages=ask, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == "red"
    seen: Any = [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": address("blue")},
    ]
    first = client.responses.create(model=model, input=[{"role": "user", "content": seen}])
    assert first.output_text.strip() == "blue"
    # what was seen is remembered
    again = client.responses.create(model=model, input="and now?", previous_response_id=first.id)
    assert again.output_text.strip() == "blue"


@pytest.mark.parametrize("model", [SEER, BY_TEMPLATE])
def test_anthropics_images_are_seen_counted_and_may_be_what_a_tool_gave(
    claude: anthropic.Anthropic, model: str
) -> None:
    ask: Any = [{"role": "user", "content": [source("green"), {"type": "text", "text": "what?"}]}]
    told = claude.messages.create(model=model, max_tokens=20, messages=ask)
    assert told.content[0].text.strip() == "green"  # type: ignore[union-attr]
    counted = claude.messages.count_tokens(model=model, messages=ask)
    assert counted.input_tokens == told.usage.input_tokens
    shown: Any = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [source("red")]}],
        },
    ]
    if model == SEER:  # the template of the other knows no tools
        with claude.messages.stream(model=model, max_tokens=20, messages=shown, tools=[TOOL]) as stream:
            assert "".join(stream.text_stream).strip() == "red"


def test_sounds_are_heard_in_every_dialect(native: ollama.Client, client: openai.OpenAI) -> None:
    heard = native.chat(SEER, [{"role": "user", "content": "what?", "images": [sound()]}])
    assert (heard.message.content or "").strip() == HEARD
    audio: Any = {"type": "input_audio", "input_audio": {"data": encoded(sound()), "format": "wav"}}
    for model in (SEER, BY_TEMPLATE):
        ask: Any = [{"role": "user", "content": [{"type": "text", "text": "what?"}, audio]}]
        told = client.chat.completions.create(model=model, messages=ask)
        assert (told.choices[0].message.content or "").strip() == HEARD


def test_a_recording_is_transcribed_whole_as_text_and_as_events(client: openai.OpenAI) -> None:
    file = ("a.wav", sound(), "audio/wav")
    whole = client.audio.transcriptions.create(model=SEER, file=file, language="en", temperature=0)
    assert whole.text == HEARD
    assert whole.usage is not None
    assert whole.usage.type == "tokens"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    text = client.audio.transcriptions.create(model=SEER, file=file, response_format="text")
    assert text == HEARD
    events = list(client.audio.transcriptions.create(model=SEER, file=file, stream=True))
    pieces = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(pieces) == HEARD
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == HEARD
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model=SEER, file=("a.wav", b"no sound", "audio/wav"))
    assert (refused.value.type, refused.value.body) == (
        "invalid_request_error",
        {
            "message": "Failed to load image or audio file",
            "type": "invalid_request_error",
            "param": "messages",
            "code": None,
        },
    )


def test_what_is_no_image_is_refused_by_everybody(url: str) -> None:
    none = encoded(b"this is no image at all")
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{none}"}}]
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": none}}
    for path, body in (
        ("/api/generate", {"prompt": "what?", "images": [none]}),
        ("/api/chat", {"messages": [{"role": "user", "content": "what?", "images": [none]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}),
    ):
        for model in (SEER, BY_TEMPLATE):
            status, told = post(url, path, {"model": model, **body})
            error = told["error"]
            message = error if isinstance(error, str) else error["message"]
            assert (status, "Failed to load image" in message) == (400, True), (path, told)


def test_texts_are_ranked_in_every_form(url: str) -> None:
    documents = ["a goose", f"{LLAMA} {LLAMA}", f"one {LLAMA}"]
    for path in ("/v1/rerank", "/v2/rerank"):
        body = {"model": "ranking", "query": "which?", "documents": documents, "top_n": 2}
        status, told = post(url, path, body)
        assert (status, [row["index"] for row in told["results"]]) == (200, [1, 2])
        scores = [row["relevance_score"] for row in told["results"]]
        assert scores[0] > scores[1] > 0.5
    status, rows = post(url, "/rerank", {"query": "which?", "texts": documents})
    assert (status, [row["index"] for row in rows]) == (200, [1, 2, 0])
    status, told = post(
        url, "/v1/chat/completions", {"model": "ranking", "messages": [{"role": "user", "content": "?"}]}
    )
    assert (status, told["error"]["message"]) == (400, '"ranking" does not support chat')


def test_a_gap_is_filled_in_every_dialect(url: str, native: ollama.Client, client: openai.OpenAI) -> None:
    assert native.generate("filling", "a", suffix="b").response.strip() == FILLED
    streamed = native.generate("filling", "a", suffix="b", stream=True)
    assert "".join(part.response for part in streamed).strip() == FILLED
    told = client.completions.create(model="filling", prompt="a", suffix="b", max_tokens=10)
    assert told.choices[0].text.strip() == FILLED
    status, own = post(url, "/infill", {"model": "filling", "input_prefix": "a", "input_suffix": "b"})
    assert (status, own["content"].strip()) == (200, FILLED)
