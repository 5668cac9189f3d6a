"""The embedded model: its bytes, and what a real llama-server makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from llamamgr.core import gguf_facts
from llamamgr.core.cards import Build
from llamamgr.core.gguf import read_header
from llamamgr.models import selftest
from tests.fakes.launch import Launched, UnixConnection, launched

PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}
THINKING = {"chat_template_kwargs": {"enable_thinking": True}}


def tool(name: str) -> dict[str, Any]:
    properties = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": properties}}


def test_it_is_written_quickly_small_and_without_numpy():
    code = (
        "import sys, time; from llamamgr.models import selftest; start = time.process_time()\n"
        "size = len(selftest.selftest_bytes()); took = time.process_time() - start\n"
        "assert took < 0.3 and size < 3_000_000 and 'numpy' not in sys.modules and 'gguf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_its_bytes_are_the_same_in_every_process():
    code = "import hashlib; from llamamgr.models import selftest; print(hashlib.sha256(selftest.selftest_bytes()).hexdigest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert next(iter(digests)).strip()


def test_the_gguf_package_reads_what_was_written(tmp_path: Path):
    theirs = gguf.GGUFReader(selftest.ensure(tmp_path))
    ours = read_header(selftest.selftest_bytes())
    tokens = theirs.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens)) == theirs.fields["llama.vocab_size"].contents()
    assert [tensor.name for tensor in theirs.tensors] == [tensor.name for tensor in ours.tensors]
    rows = theirs.get_tensor(0).data
    assert ((rows == 0) | (rows == 1)).all()
    assert (rows.sum(axis=1) == 1).all()


def test_its_widths_take_k_quants():
    matrices = [tensor for tensor in read_header(selftest.selftest_bytes()).tensors if len(tensor.shape) > 1]
    assert matrices
    assert all(tensor.shape[0] % 256 == 0 for tensor in matrices)


def test_its_header_tells_what_it_can():
    header = read_header(selftest.selftest_bytes())
    assert set(gguf_facts.capabilities(header)) == {"completion", "tools", "thinking"}
    assert gguf_facts.context_length(header) == selftest.CONTEXT
    assert gguf_facts.kind(header, "selftest") == "model"


def test_ensure_writes_once_and_mends_what_is_wrong(tmp_path: Path):
    path = selftest.ensure(tmp_path / "deep" / "folder")
    written = path.stat().st_mtime_ns
    assert selftest.ensure(path.parent) == path
    assert path.stat().st_mtime_ns == written
    path.write_bytes(bytes(path.stat().st_size))
    assert selftest.ensure(path.parent).read_bytes() == selftest.selftest_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == [selftest.FILE_NAME]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return selftest.ensure(tmp_path_factory.mktemp("selftest"))


@pytest.fixture
def server(real_build: Build, model: Path) -> Iterator[Launched]:
    binary = Path(real_build.tool("llama-server"))
    arguments = ["--model", str(model), "--alias", "selftest", "-np", "1", "-t", "1", "-c", "8192"]
    with launched(binary, arguments) as server:
        server.wait_healthy()
        yield server


def ask(server: Launched, path: str = "/v1/chat/completions", **body: Any) -> Any:
    if "chat" in path and "messages" not in body:
        body["messages"] = [{"role": "user", "content": "Hello!"}]
    status, _, answer = server.request("POST", path, json.dumps(body))
    assert status == 200, answer
    return json.loads(answer)


def said(server: Launched, **body: Any) -> dict[str, Any]:
    message: dict[str, Any] = ask(server, **body)["choices"][0]["message"]
    return message


@pytest.mark.real
def test_it_answers_its_sentence_at_any_temperature(server: Launched):
    for sampling in (
        {"temperature": 0},
        {"temperature": 0.8},
        {"temperature": 3, "top_k": 0, "top_p": 1, "min_p": 0},
    ):
        assert said(server, **PLAIN, **sampling) == {"role": "assistant", "content": selftest.ANSWER}
    assert said(server, **PLAIN, repeat_penalty=1.8, presence_penalty=1.5)["content"] == selftest.ANSWER


@pytest.mark.real
def test_it_completes_raw_text_with_its_sentence(server: Launched):
    assert (
        ask(server, "/v1/completions", prompt="Once upon", temperature=0)["choices"][0]["text"]
        == selftest.ANSWER
    )
    assert ask(server, "/completion", prompt="")["content"] == selftest.ANSWER


@pytest.mark.real
def test_it_thinks_on_request(server: Launched):
    message = said(server, **THINKING)
    assert (message["reasoning_content"], message["content"]) == (selftest.THOUGHT, selftest.ANSWER)
    assert "reasoning_content" not in said(server, **PLAIN)


@pytest.mark.real
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_it_calls_its_tool_when_that_is_offered(server: Launched, choice: str):
    offered = [tool("other"), tool(selftest.TOOL_NAME)]
    answer = ask(server, tools=offered, tool_choice=choice)["choices"][0]
    (call,) = answer["message"]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == selftest.TOOL_NAME
    assert json.loads(call["function"]["arguments"]) == selftest.TOOL_ARGUMENTS


@pytest.mark.real
def test_it_answers_when_only_other_tools_are_offered_and_after_a_tools_result(server: Launched):
    assert said(server, tools=[tool("other")], **PLAIN)["content"] == selftest.ANSWER
    arguments = json.dumps(selftest.TOOL_ARGUMENTS)
    call = {"id": "1", "type": "function", "function": {"name": selftest.TOOL_NAME, "arguments": arguments}}
    messages = [
        {"role": "user", "content": "How is it in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    assert (
        said(server, messages=messages, tools=[tool(selftest.TOOL_NAME)], **PLAIN)["content"]
        == selftest.ANSWER
    )


@pytest.mark.real
def test_a_stream_gives_thought_and_answer_in_many_pieces(server: Launched):
    events = stream(server, {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **THINKING})
    deltas = [event["choices"][0]["delta"] for event in events]
    thought = [delta["reasoning_content"] for delta in deltas if delta.get("reasoning_content")]
    text = [delta["content"] for delta in deltas if delta.get("content")]
    assert ("".join(thought), "".join(text)) == (selftest.THOUGHT, selftest.ANSWER)
    assert len(thought) > 3
    assert len(text) > 5


@pytest.mark.real
def test_it_goes_on_for_ever_when_asked_to(server: Launched):
    messages = [{"role": "user", "content": f"Please {selftest.ENDLESS_PROMPT}."}]
    answer = ask(server, messages=messages, max_tokens=500)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 500
    assert answer["choices"][0]["message"]["content"].startswith("one two three four one")


@pytest.mark.real
def test_json_mode_and_schemas_end_in_valid_documents(server: Launched):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
        "required": ["name", "age", "tags"],
    }
    free = said(server, response_format={"type": "json_object"}, **PLAIN)["content"]
    bound = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    shaped = said(server, response_format=bound, max_tokens=400, **PLAIN)["content"]
    assert json.loads(free) == {}
    assert json.loads(shaped) == {"name": selftest.ANSWER, "age": 0, "tags": []}


def stream(server: Launched, body: dict[str, Any]) -> list[dict[str, Any]]:
    connection = UnixConnection(server.socket)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 20
    events = []
    answer = connection.getresponse()
    while (line := answer.readline()) and time.monotonic() < deadline:
        if line.startswith(b"data: {"):
            events.append(json.loads(line[6:]))
    connection.close()
    return events
