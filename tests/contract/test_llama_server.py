"""What llamamgr relies on in a llama-server, asked of the fake and of a real one alike."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from llamamgr.core.flags import SPELLINGS, parse_help, write_argv
from tests.contract.conftest import CONTEXT, SLOTS, arguments
from tests.fakes.launch import DEADLINE, Launched, UnixConnection, launched

ANSWER = "Hello from the tiny llama."
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def post(server: Launched, path: str, **body: Any) -> Any:
    status, headers, raw = server.request("POST", path, json.dumps(body))
    assert status == 200, raw
    assert headers["content-type"].startswith("application/json")
    return json.loads(raw)


def events(server: Launched, path: str, **body: Any) -> list[Any]:
    """The data of each event of a stream; ``[DONE]`` as it is."""
    status, headers, raw = server.request("POST", path, json.dumps({**body, "stream": True}))
    assert status == 200, raw
    assert headers["content-type"] == "text/event-stream"
    assert headers["transfer-encoding"] == "chunked"
    lines = raw.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def refused(server: Launched, path: str, body: str) -> tuple[int, dict[str, Any]]:
    status, _, raw = server.request("POST", path, body)
    return status, json.loads(raw)["error"]


def deltas(chunks: list[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]" and chunk["choices"]]


def test_health_is_ok_once_loaded(server: Launched) -> None:
    assert server.request("GET", "/health")[::2] == (200, b'{"status":"ok"}')


def test_props_tell_slots_context_alias_and_build(server: Launched) -> None:
    props = json.loads(server.request("GET", "/props")[2])
    assert props["total_slots"] == SLOTS
    assert props["default_generation_settings"]["n_ctx"] == CONTEXT
    assert props["model_alias"] == "tinychat"
    assert props["build_info"].startswith("b")


def test_models_name_the_alias(server: Launched) -> None:
    card = json.loads(server.request("GET", "/v1/models")[2])["data"][0]
    assert (card["id"], card["meta"]["n_ctx"]) == ("tinychat", CONTEXT)


def test_slots_tell_who_is_busy(server: Launched) -> None:
    rows = json.loads(server.request("GET", "/slots")[2])
    assert [(row["id"], row["is_processing"]) for row in rows] == [(0, False), (1, False)]


def test_metrics_count_tokens_and_the_seconds_they_took_once_an_answer_is_over(binary: Path) -> None:
    with launched(binary, [*arguments(), "--metrics"]) as server:
        server.wait_healthy()
        post(server, "/v1/chat/completions", messages=HI, temperature=0)
        figures = {"tokens_predicted_total": 0.0}
        deadline = time.monotonic() + DEADLINE
        while (
            not figures["tokens_predicted_total"] and time.monotonic() < deadline
        ):  # soon after the last byte
            told = server.request("GET", "/metrics")[2].decode()
            found = re.findall(r"^llamacpp:(\w+) (\S+)$", told, re.MULTILINE)
            figures = {name: float(value) for name, value in found}
    assert figures["tokens_predicted_total"] in (6, 7)  # the last one ends the text
    assert 0 < figures["tokens_predicted_seconds_total"] < 60


def test_a_slot_that_works_tells_its_task_and_its_tokens(server: Launched) -> None:
    body = {"prompt": "<|user|>count forever</s><|assistant|>", "stream": True, "n_predict": 900}
    rows: list[dict[str, Any]] = []
    for _ in range(50):  # a real engine may be through before it is looked at
        with contextlib.closing(UnixConnection(server.socket)) as connection:
            connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
            connection.getresponse().read1(200)
            rows = [row for row in json.loads(server.request("GET", "/slots")[2]) if row["is_processing"]]
        if rows and rows[0]["next_token"][0]["n_decoded"] > 0:
            break
    row = rows[0]
    assert row["id_task"] >= 0
    assert row["next_token"][0]["n_decoded"] > 0


def test_a_whole_chat_has_message_usage_and_timings(server: Launched) -> None:
    answer = post(server, "/v1/chat/completions", messages=HI, temperature=0)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ANSWER}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == "tinychat"
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["usage"]["completion_tokens"] == 7
    assert {"cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms"} <= answer["timings"].keys()


def test_a_chat_stream_is_role_text_finish_usage_done(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, stream_options={"include_usage": True})
    first, *text, last = deltas(chunks)
    assert first == {"role": "assistant", "content": None}
    assert "".join(delta["content"] for delta in text) == ANSWER
    assert last == {}
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-2]["choices"], chunks[-2]["usage"]["completion_tokens"]) == ([], 7)
    assert chunks[-2]["timings"]["predicted_n"] == 7
    assert chunks[-1] == "[DONE]"


def test_without_include_usage_the_timings_ride_on_the_finish_chunk(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI)
    assert "timings" in chunks[-2]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_chat_that_hits_its_limit_finishes_by_length(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, max_tokens=3)
    assert "".join(delta.get("content") or "" for delta in deltas(chunks)) == "Hello from the"
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


def test_a_tool_call_comes_as_deltas_with_arguments_as_text(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, tools=[WEATHER])
    calls = [call for delta in deltas(chunks) for call in delta.get("tool_calls", [])]
    assert calls[0]["id"]
    assert calls[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(call["function"].get("arguments", "") for call in calls)) == {"city": "Paris"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_logprobs_ride_on_the_chunk_of_their_token(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, max_tokens=1, logprobs=True, top_logprobs=2)
    rows = [row for c in chunks[:-2] for row in c["choices"][0].get("logprobs", {}).get("content", [])]
    assert [row["token"] for row in rows] == ["Hello"]
    assert rows[0]["bytes"] == [72, 101, 108, 108, 111]
    assert len(rows[0]["top_logprobs"]) == 2


def test_a_whole_completion_gives_text_tokens_and_stop_type(server: Launched) -> None:
    answer = post(server, "/completion", prompt="hi", return_tokens=True)
    assert answer["content"] == ANSWER
    assert answer["tokens"] == [263, 264, 265, 266, 267, 268, 2]
    assert (answer["stop"], answer["stop_type"]) == (True, "eos")
    assert (answer["tokens_predicted"], answer["tokens_evaluated"]) == (7, 3)


def test_a_completion_stream_ends_with_a_stop_chunk_and_no_done(server: Launched) -> None:
    chunks = events(server, "/completion", prompt="hi", return_tokens=True, n_predict=3)
    assert "".join(chunk["content"] for chunk in chunks) == "Hello from the"
    assert [token for chunk in chunks for token in chunk["tokens"]] == [263, 264, 265]
    assert (chunks[-1]["stop"], chunks[-1]["stop_type"]) == (True, "limit")
    assert not any(chunk["stop"] for chunk in chunks[:-1])


def test_a_stop_string_ends_a_completion_and_is_left_out(server: Launched) -> None:
    answer = post(server, "/completion", prompt="hi", stop=[" tiny"])
    assert (answer["content"], answer["stop_type"], answer["stopping_word"]) == (
        "Hello from the",
        "word",
        " tiny",
    )


def test_the_chat_template_can_be_applied_alone(server: Launched) -> None:
    assert post(server, "/apply-template", messages=HI) == {"prompt": "<|user|>hi</s><|assistant|>"}


def test_text_becomes_tokens_and_back(server: Launched) -> None:
    tokens = post(server, "/tokenize", content="hi.", add_special=True)["tokens"]
    assert tokens == [1, 107, 108, 268]
    assert post(server, "/detokenize", tokens=tokens[1:])["content"] == "hi."
    assert post(server, "/tokenize", content="<|user|>")["tokens"] == [259]


def test_an_unknown_route_is_404_in_its_own_shape(server: Launched) -> None:
    status, _, raw = server.request("GET", "/nope")
    expected = {"message": "File Not Found", "type": "not_found_error", "code": 404}
    assert (status, json.loads(raw)["error"]) == (404, expected)


def test_bad_json_and_missing_fields_are_refused_with_a_message(server: Launched) -> None:
    status, error = refused(server, "/v1/chat/completions", "{bad")
    assert status in (400, 500)
    assert "parse error" in error["message"]
    status, error = refused(server, "/v1/chat/completions", "{}")
    assert (status, error["message"]) == (400, "'messages' is required")


def test_a_prompt_beyond_the_context_is_refused_before_the_stream(server: Launched) -> None:
    status, error = refused(server, "/completion", json.dumps({"prompt": "a" * 2000, "stream": True}))
    assert (status, error["type"]) == (400, "exceed_context_size_error")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (2001, CONTEXT)


def test_a_text_model_refuses_embeddings(server: Launched) -> None:
    status, error = refused(server, "/v1/embeddings", '{"input": "x"}')
    assert (status, error["type"]) == (501, "not_supported_error")


def test_the_connection_is_closed_after_a_stream_whatever_its_headers_say(server: Launched) -> None:
    connection = UnixConnection(server.socket)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": HI, "stream": True}))
        answer = connection.getresponse()
        assert answer.getheader("Connection") is None
        peer = connection.sock
        answer.read()
        assert peer.recv(1) == b""
    finally:
        connection.close()


def test_the_connection_stays_open_after_a_plain_answer(server: Launched) -> None:
    connection = UnixConnection(server.socket)
    try:
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
    finally:
        connection.close()


def test_a_client_that_leaves_frees_its_slot(server: Launched) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(server.socket)
        body = json.dumps({"prompt": "hi", "stream": True, "n_predict": 100000, "ignore_eos": True})
        head = f"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.sendall((head + body).encode())
        assert peer.recv(12) == b"HTTP/1.1 200"
    server.process.send_signal(signal.SIGTERM)
    # with the slot still busy the real one would wait for its ping, 30 s
    assert server.process.wait(DEADLINE) == 0


def test_sigterm_ends_an_idle_server_with_exit_code_0(server: Launched) -> None:
    """The engine takes the signal over a moment after it tells that it is ready: by its first answer it has."""
    server.request("POST", "/tokenize", '{"content":"hi"}')
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0


def test_a_missing_model_ends_it_with_exit_code_1_and_a_reason(binary: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(binary), "--host", str(tmp_path / "s.sock"), *arguments(tmp_path / "none.gguf")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert "failed to load model" in done.stdout + done.stderr


def test_a_stale_socket_file_makes_the_bind_fail(binary: Path) -> None:
    with launched(binary, arguments()) as first:
        first.wait_healthy()
        done = subprocess.run(
            [str(binary), "--host", first.socket, *arguments()],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    assert done.returncode == 1
    assert "bind" in done.stdout + done.stderr


def test_an_unknown_option_is_fatal_before_any_load(binary: Path) -> None:
    done = subprocess.run([str(binary), "--nope"], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr.strip()) == (1, "error: invalid argument: --nope")


def test_help_lists_the_options_that_llamamgr_passes(binary: Path) -> None:
    done = subprocess.run([str(binary), "--help"], capture_output=True, text=True, timeout=DEADLINE)
    flags = parse_help(done.stdout)
    assert done.returncode == 0
    assert {"--model", "--alias", "--host", "--parallel", "--ctx-size"} <= flags.keys()
    assert "--draft-max" not in flags
    wanted = dict.fromkeys(("model", "alias", "host", "parallel", "context", "ping_interval"), "x")
    assert write_argv(wanted, flags)[1] == []
    assert set(wanted) <= SPELLINGS.keys()


def test_version_and_devices_are_told_without_a_model(binary: Path) -> None:
    version = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=DEADLINE)
    devices = subprocess.run(
        [str(binary), "--list-devices"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert "version: " in version.stdout + version.stderr
    assert devices.stdout.startswith("Available devices:")


@pytest.mark.parametrize("binary", ["fake"], indirect=True)
def test_while_it_loads_everything_is_503_loading_model(binary: Path) -> None:
    with launched(binary, arguments(), "never-healthy") as server:
        for path in ("/health", "/v1/models"):
            status, _, raw = server.request("GET", path)
            assert (status, json.loads(raw)["error"]["message"]) == (503, "Loading model")


def test_progress_tells_the_prompts_tokens_before_the_answer(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, return_progress=True)
    told = [chunk.get("prompt_progress") for chunk in chunks if chunk != "[DONE]"]
    assert told[0]["total"] == told[1]["total"] == told[1]["processed"] > 0
    assert told[2] is None
    counted = post(server, "/v1/chat/completions/input_tokens", messages=HI)
    assert counted["input_tokens"] == told[0]["total"]


def test_verbose_tells_the_stop_text_that_was_met_on_the_last_choice(server: Launched) -> None:
    chunks = events(server, "/v1/chat/completions", messages=HI, stop=[" tiny"], verbose=True)
    ends = [chunk for chunk in chunks if chunk != "[DONE]" and "__verbose" in chunk]
    assert [end["__verbose"]["stopping_word"] for end in ends] == [" tiny"]


def test_there_are_no_adapters_and_no_reranking_unless_asked_for(server: Launched) -> None:
    assert server.request("GET", "/lora-adapters")[2] == b"[]"
    status, error = refused(server, "/v1/rerank", '{"query":"a","documents":["b"]}')
    assert (status, error["type"]) == (501, "not_supported_error")
