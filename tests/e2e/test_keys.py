"""API keys, sent by the official clients as each sends its own, to a front that asks for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import ollama
import openai
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr

pytestmark = pytest.mark.real
ASK = [{"role": "user", "content": "hello"}]


def new_key(name: str, *limits: str) -> str:
    made = llamamgr("key", "create", name, *limits)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture
def guarded(home_with_models: Path) -> Iterator[Daemon]:
    with (home_with_models / "config" / "config.toml").open("a") as config:
        config.write("[server]\nrequire_key = true\naccess_log = true\n")
    running = Daemon(home_with_models)
    yield running
    running.stop()


def test_the_ollama_client_gets_in_with_its_key_and_sees_its_models_alone(guarded: Daemon):
    secret = new_key("ann", "--model", "selftest")
    for headers, works in ((None, False), ({"Authorization": f"Bearer {secret}"}, True)):
        client = ollama.Client(host=guarded.url, headers=headers)
        if not works:
            with pytest.raises(ollama.ResponseError) as caught:
                client.chat("selftest", ASK)
            assert (caught.value.status_code, "API key is needed" in caught.value.error) == (401, True)
        else:
            assert client.chat("selftest", ASK).message.content == selftest.ANSWER
            assert [model.model for model in client.list().models] == ["selftest:latest"]
            with pytest.raises(ollama.ResponseError) as caught:
                client.generate("tinychat", "hi")
            assert caught.value.status_code == 403
        client._client.close()


def test_the_ollama_client_finds_its_key_in_the_environment(guarded: Daemon):
    script = f"import ollama; print(ollama.Client(host='{guarded.url}').list().models[0].model)"
    env = os.environ | {"OLLAMA_API_KEY": new_key("ann")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert ":" in done.stdout, done.stderr


def test_the_openai_client_gets_its_own_exceptions(guarded: Daemon):
    url = f"{guarded.url}/v1"
    with openai.OpenAI(base_url=url, api_key=new_key("ann")) as client:
        whole = client.chat.completions.create(model="selftest", messages=ASK)  # type: ignore[arg-type]
        assert whole.choices[0].message.content == selftest.ANSWER
    with openai.OpenAI(base_url=url, api_key="lmk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            client.models.list()
        assert wrong.value.code == "invalid_api_key"
    limits = ("--endpoint", "models", "--rate", "2/h")
    with openai.OpenAI(base_url=url, api_key=new_key("bob", *limits), max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="selftest", messages=ASK)  # type: ignore[arg-type]
        assert client.models.list().data
        assert client.models.list().data
        with pytest.raises(openai.RateLimitError) as limited:
            client.models.list()
        assert int(limited.value.response.headers["Retry-After"]) > 60


def test_the_anthropic_client_sends_its_key_or_its_token(guarded: Daemon):
    secret = new_key("ann", "--endpoint", "chat")
    for given in ({"api_key": secret}, {"auth_token": secret}):
        with anthropic.Anthropic(base_url=guarded.url, **given) as client:
            answer = client.messages.create(model="selftest", max_tokens=50, messages=ASK)  # type: ignore[arg-type]
            assert answer.content[0].text == selftest.ANSWER  # type: ignore[union-attr]
            with pytest.raises(anthropic.PermissionDeniedError):
                client.models.list()
    with anthropic.Anthropic(base_url=guarded.url, api_key="lmk-wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as wrong:
            client.messages.create(model="selftest", max_tokens=50, messages=ASK)  # type: ignore[arg-type]
        assert wrong.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]


def test_the_log_names_the_key_and_holds_neither_secret_nor_word(guarded: Daemon):
    secret = new_key("ann")
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=secret) as client:
        ask = [{"role": "user", "content": "a very private word"}]
        raw = client.chat.completions.with_raw_response.create(model="selftest", messages=ask)  # type: ignore[arg-type]
        id_ = raw.headers["X-Request-Id"]
    guarded.stop()
    log = guarded.log.read_text()
    lines = [line for line in log.splitlines() if f"[{id_}]" in line]
    assert any(
        "POST /v1/chat/completions 200" in line and "key=ann model=selftest:latest" in line for line in lines
    )
    assert any("is ready after" in line for line in lines)  # the load that the request waited for
    logs = [log, *(path.read_text() for path in (guarded.home / "state" / "logs").rglob("*.log"))]
    assert not [text for text in logs if secret in text or "private" in text]


def test_a_front_for_the_network_starts_once_there_is_a_key_and_asks_for_it(home_with_models: Path):
    """``127.1`` is loopback in a spelling that llamamgr does not take for it, so that nothing listens openly here."""
    command = [sys.executable, "-m", "llamamgr", "serve", "--host", "127.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, "llamamgr key create" in refused.stderr) == (2, True)
    secret = new_key("ann")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        url = daemon.stdout.readline().split()[-1]
        for key, status in (("wrong", 401), (secret, 200)):
            answer = httpx.get(f"{url}/api/tags", headers={"X-Api-Key": key})
            assert answer.status_code == status
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
