"""Chat templates that take turns in one order only, on a real llama-server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.real

# the checks of templates that are in use
SYSTEM_FIRST = (
    "{%- for m in messages -%}{%- if m.role == 'system' and not loop.first -%}"
    "{{- raise_exception('System message must be at the beginning') -}}{%- endif -%}{%- endfor -%}"
)
BY_TURNS = (
    "{%- set seen = namespace(count=0) -%}{%- for m in messages -%}"
    "{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) -%}"
    "{%- if (m.role == 'user') != (seen.count % 2 == 0) -%}"
    "{{- raise_exception('conversation roles must alternate user/assistant/user') -}}{%- endif -%}"
    "{%- set seen.count = seen.count + 1 -%}{%- endif -%}{%- endfor -%}"
)
NAMES = ("system-first", "by-turns")


@pytest.fixture
def url(home_with_models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, check in zip(NAMES, (SYSTEM_FIRST, BY_TURNS), strict=True):
        monkeypatch.setattr(selftest, "_TEMPLATE", check + TEMPLATE)
        (home_with_models / "gguf" / f"{name}.gguf").write_bytes(selftest.selftest_bytes())
    daemon = Daemon(home_with_models)
    yield daemon.url
    daemon.stop()


TEMPLATE = selftest._TEMPLATE
CHAT: Any = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hello"},
    {"role": "system", "content": "Today is Monday."},
    {"role": "user", "content": "hi"},
]


@pytest.mark.parametrize("name", NAMES)
def test_agents_turns_are_answered_in_every_dialect(url: str, name: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        off: Any = {"chat_template_kwargs": {"enable_thinking": False}}
        whole = client.chat.completions.create(model=name, messages=CHAT, extra_body=off)
        assert whole.choices[0].message.content == selftest.ANSWER
        chunks = client.chat.completions.create(model=name, messages=CHAT, stream=True, extra_body=off)
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == selftest.ANSWER
        items: Any = [{**turn, "role": turn["role"].replace("system", "developer")} for turn in CHAT]
        effort: Any = {"effort": "none"}
        told = client.responses.create(model=name, instructions="a", input=items, reasoning=effort)
        assert told.output_text == selftest.ANSWER
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as claude:
        asked: Any = {"model": name, "system": "Be kind.", "messages": CHAT[1:]}
        message = claude.messages.create(max_tokens=100, thinking={"type": "disabled"}, **asked)
        assert "".join(block.text for block in message.content if block.type == "text") == selftest.ANSWER
        assert claude.messages.count_tokens(**asked).input_tokens == message.usage.input_tokens
    native = ollama.Client(host=url)
    assert native.chat(name, CHAT, think=False).message.content == selftest.ANSWER
    native._client.close()


def test_what_no_order_mends_is_told_in_the_templates_words(url: str) -> None:
    turns: Any = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        client.chat.completions.create(model="by-turns", messages=turns)
    message = json.loads(refused.value.response.content)["error"]["message"]
    assert message.startswith("the model's chat template refuses this conversation: conversation roles must")
