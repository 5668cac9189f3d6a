"""The official JavaScript clients, as a program uses them and as a page in a browser does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from llamamgr.models import selftest
from tests.clients.conftest import Script
from tests.conftest import GOLDEN_MODELS
from tests.e2e.conftest import Daemon
from tests.fakes.registry import FakeRegistry

# the first run makes the environment
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
Start = Callable[..., Script]
ANSWER, THOUGHT = selftest.ANSWER, selftest.THOUGHT
TINY_ANSWER = "Hello from the tiny llama."
TINY = GOLDEN_MODELS / "tinychat.gguf"
MODELS = ["selftest:latest", "tinychat:latest", "tinyembed:latest"]
CITY = {"city": ANSWER}  # what the self-test model fills a string of a schema with


def call(arguments: object = selftest.TOOL_ARGUMENTS) -> dict[str, Any]:
    return {"name": selftest.TOOL_NAME, "arguments": arguments}


def test_the_ollama_client_chats_thinks_calls_tools_and_embeds(start: Start) -> None:
    told = start("ollama", "chat", "thinks", "structured", "tools", "embeds").told()
    chat, tools = told["chat"], told["tools"]
    assert (chat["whole"], chat["streamed"], chat["generated"]) == (ANSWER, ANSWER, ANSWER)
    assert (chat["model"], chat["done"], chat["counted"]) == ("selftest", [True, "stop"], True)
    assert told["thinks"] == {"whole": [THOUGHT, ANSWER], "streamed": [THOUGHT, ANSWER]}
    assert told["structured"] == CITY
    assert tools == {"whole": [call() | {"index": 0}], "streamed": [call() | {"index": 0}], "after": ANSWER}
    assert told["embeds"] == {"rows": 2, "widths": [288, 288], "norm": pytest.approx(1.0, abs=1e-5)}


def test_the_ollama_client_creates_pulls_copies_and_deletes(far: FakeRegistry, start: Start) -> None:
    far.add_model("library/far", "1b", model=TINY.read_bytes())
    told = start("ollama", "models", "pulls").told()
    models, pulls = told["models"], told["pulls"]
    assert (models["created"], models["said"]) == ("success", "Hello from the")
    assert models["shown"] == ["be kind", "llama", True]
    assert (models["running"], models["deleted"]) == (["mine:latest"], "success")
    assert (models["left"], models["unloaded"]) == (["copy:latest", *MODELS], "unload")
    assert (pulls["statuses"], pulls["said"]) == (["pulling manifest", "success"], TINY_ANSWER)
    assert pulls["completed"] == TINY.stat().st_size
    assert "file does not exist" in pulls["missing"]["message"]


def test_the_ollama_client_sees_what_it_did_wrong(start: Start) -> None:
    told = start("ollama", "errors").told()["errors"]
    for case in ("unknown", "unknown_streamed", "deleted"):
        assert (told[case]["kind"], told[case]["status"]) == ("ResponseError", 404)
        assert told[case]["message"] == "model 'nope' not found"
    assert told["wrong"]["status"] == 400
    assert told["wrong"]["message"].startswith("invalid format:")


def test_the_openai_client_chats_parses_calls_tools_and_embeds(start: Start) -> None:
    told = start("openai", "chat", "parses", "tools", "embeds", "completes", "models").told()
    chat, tools = told["chat"], told["tools"]
    assert chat == {
        "whole": [ANSWER, "stop", "selftest"],
        "streamed": ANSWER,
        "thought": THOUGHT,
        "usage": True,
    }
    assert told["parses"] == [CITY, CITY]
    assert tools["whole"] == tools["streamed"] == [call('{"city":"Paris"}')]
    assert tools["reasons"] == ["tool_calls", "tool_calls"]
    assert (tools["run"], tools["asked"]) == ([ANSWER, ANSWER], [selftest.TOOL_ARGUMENTS] * 2)
    assert told["embeds"] == {"rows": 2, "width": 288, "difference": pytest.approx(0, abs=1e-6)}
    assert told["completes"] == {"whole": ["Every llama here"] * 2, "streamed": ANSWER}
    assert told["models"] == {"listed": MODELS, "found": "model"}


def test_the_openai_client_gets_responses_goes_on_from_them_and_calls_functions(start: Start) -> None:
    told = start("openai", "responses", "functions").told()
    responses = told["responses"]
    assert (responses["whole"], responses["streamed"]) == ([ANSWER, "completed"], ANSWER)
    assert responses["ends"] == ["response.created", "response.completed"]
    assert (responses["numbered"], responses["longer"], responses["kept"]) == (True, True, ANSWER)
    assert responses["forgotten"]["code"] == "previous_response_not_found"
    assert responses["thought"] == THOUGHT
    assert (responses["counted"], responses["listed"]) == (True, ["hello", ANSWER, "more"])
    assert responses["cancelled"]["status"] == 400
    assert told["functions"] == {**call(), "after": ANSWER}


def test_the_openai_client_sees_what_it_did_wrong(start: Start) -> None:
    told = start("openai", "errors").told()["errors"]
    for case in ("unknown", "unknown_streamed"):
        assert (told[case]["kind"], told[case]["code"]) == ("NotFoundError", "model_not_found")
    assert (told["empty"]["kind"], told["empty"]["param"]) == ("BadRequestError", "messages")
    assert (told["tool"]["kind"], told["tool"]["status"], told["tool"]["param"]) == (
        "BadRequestError",
        400,
        "tools",
    )
    assert told["long"]["code"] == "context_length_exceeded"


def test_the_anthropic_client_gets_messages_thinks_calls_tools_and_counts(start: Start) -> None:
    told = start("anthropic", "messages", "thinks", "tools", "structured", "counts", "warms", "models").told()
    messages, tools = told["messages"], told["tools"]
    assert (messages["whole"], messages["streamed"], messages["heard"]) == ([ANSWER], [ANSWER], ANSWER)
    assert messages["reasons"] == ["end_turn", "end_turn", "max_tokens"]
    assert (messages["usage"], messages["identified"]) == ([True, True], True)
    thinks = {"thought": THOUGHT, "signed": True, "said": ANSWER, "hidden": ["thinking", ""]}
    assert (told["thinks"], told["warms"]) == (thinks, [[], "max_tokens", 0, True])
    assert tools["call"] == [selftest.TOOL_NAME, selftest.TOOL_ARGUMENTS, "tool_use"]
    assert (tools["after"], tools["run"], tools["asked"]) == (ANSWER, ANSWER, [selftest.TOOL_ARGUMENTS])
    assert told["structured"] == CITY
    counted, charged = told["counts"]
    assert counted == charged > 10
    assert told["models"] == {"listed": MODELS, "found": "model"}


def test_the_anthropic_client_sees_what_it_did_wrong(start: Start) -> None:
    told = start("anthropic", "errors").told()["errors"]
    for case in ("unknown", "unknown_streamed"):
        assert (told[case]["kind"], told[case]["status"]) == ("NotFoundError", 404)
    assert told["empty"]["kind"] == "BadRequestError"
    assert "messages is required" in told["empty"]["message"]


@pytest.mark.parametrize("client", ["ollama", "openai", "anthropic"])
def test_a_stream_that_a_client_aborts_is_generated_no_further(start: Start, client: str) -> None:
    assert start(client, "aborted").told()["aborted"]["cut"] is True


@pytest.mark.parametrize("client", ["ollama", "openai", "anthropic"])
def test_a_killed_engine_is_an_error_in_the_stream_and_never_its_end(
    start: Start, daemon: Daemon, client: str
) -> None:
    script = start(client, "killed")
    script.heard("streaming")
    os.kill(daemon.children()[0]["pid"], signal.SIGKILL)
    assert "was killed by SIGKILL" in script.told()["killed"]["message"]


def test_all_three_clients_work_in_a_page_of_an_allowed_origin_and_in_no_other(start: Start) -> None:
    told = start("browser", "pages", "stranger").told()
    pages = told["pages"]
    assert (pages["ollama"], pages["openai"], pages["anthropic"]) == (ANSWER, ANSWER, [ANSWER, ANSWER])
    assert (pages["deleted"], pages["listed"]) == ("success", 3)
    assert (pages["identified"], pages["unknown"]) == ([True, True], "NotFoundError")
    assert told["stranger"] == [403, None]


def test_connections_are_kept_from_one_request_to_the_next(start: Start) -> None:
    told = start("browser", "connections").told()["connections"]
    assert told["kept"] == 1
    assert told["statuses"] == [200, 200, 404, 200]
    assert told["fetched"] <= 4
    assert told["many"] == [ANSWER]
