"""Models made, copied, deleted and pulled by the official client and by the command line, over the real engine."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.conftest import GOLDEN_MODELS
from tests.e2e.conftest import Daemon, llamamgr
from tests.fakes import registry
from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.real
TINY = GOLDEN_MODELS / "tinychat.gguf"
ANSWER = "Hello from the tiny llama."
GO = "{{ range .Messages }}<|user|>{{ .Content }}</s>{{ end }}<|assistant|>"


def ask(text: str = "hi") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with registry.running() as fake:
        yield fake


@pytest.fixture
def client(home_with_models: Path, fake: FakeRegistry) -> Iterator[ollama.Client]:
    """Of a daemon whose registry is ``fake``."""
    config = home_with_models / "config" / "config.toml"
    config.write_text(config.read_text() + f'[registry]\nollama = "{fake.url}"\nhub = "{fake.url}"\n')
    daemon = Daemon(home_with_models)
    client = ollama.Client(host=daemon.url)
    yield client
    client._client.close()
    daemon.stop()


def test_the_ollama_client_creates_chats_copies_and_deletes(client: ollama.Client):
    steps = [
        step.status
        for step in client.create(
            "mine", from_="tinychat", system="S", parameters={"stop": [" tiny"]}, template=GO, stream=True
        )
    ]
    assert steps[-2:] == ["writing manifest", "success"]
    assert client.chat("mine", ask()).message.content == "Hello from the"
    assert client.chat("mine", ask(), options={"stop": []}).message.content == ANSWER
    shown = client.show("mine")
    assert (shown.template, shown.details.parent_model if shown.details else "") == (GO, "tinychat:latest")
    assert client.copy("mine", "copy").status == "success"
    assert client.delete("mine").status == "success"
    names = {model.model for model in client.list().models}
    assert "copy:latest" in names and "mine:latest" not in names
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        client.delete("mine")
    assert caught.value.status_code == 404


def test_what_the_command_line_makes_anew_the_daemon_knows_at_once(client: ollama.Client, tmp_path: Path):
    said = tmp_path / "Modelfile"
    for system in ("one", "two", "three"):
        said.write_text(f"FROM tinychat\nSYSTEM {system}\n")
        assert llamamgr("create", "mine", "-f", str(said)).returncode == 0
        assert f"SYSTEM {system}" in (client.show("mine").modelfile or "")
        assert llamamgr("cp", "mine", system).returncode == 0
        assert {model.model for model in client.list().models} >= {"mine:latest", f"{system}:latest"}


def test_the_ollama_client_uploads_a_file_and_quantizes_it(client: ollama.Client):
    digest = client.create_blob(TINY)
    assert digest == f"sha256:{hashlib.sha256(TINY.read_bytes()).hexdigest()}"
    steps = list(client.create("small", files={"tiny.gguf": digest}, quantize="q8_0", stream=True))
    assert any(step.status == "quantizing F32 model to Q8_0" and step.total for step in steps)
    shown = client.show("small")
    assert shown.details and shown.details.quantization_level == "Q8_0"
    assert client.chat("small", ask()).message.content == ANSWER
    with pytest.raises(ollama.ResponseError, match="only supported for F16 and F32"):
        client.create("smaller", from_="small", quantize="q4_0")


def test_the_ollama_client_pulls_with_progress_and_chats(client: ollama.Client, fake: FakeRegistry):
    fake.add_model("library/far", "1b", model=TINY.read_bytes(), template=GO.encode(), system=b"S")
    fake.cuts = [500_000]
    steps = list(client.pull("far:1b", stream=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    assert max(step.completed or 0 for step in steps) == TINY.stat().st_size
    assert client.chat("far:1b", ask()).message.content == ANSWER
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        client.pull("nope")


def test_a_base_that_is_nowhere_is_named_by_the_command_line(client: ollama.Client):
    done = llamamgr("create", "x", "-f", "-", stdin="FROM tinychatt\n")
    assert done.returncode == 4
    assert "FROM tinychatt: there is no such model here, and it cannot be pulled: " in done.stderr
    assert "hint: did you mean tinychat:latest" in done.stderr


def test_a_model_is_run_by_its_path_where_the_daemon_has_it_if_it_does(
    client: ollama.Client, tmp_path: Path, home_with_models: Path
):
    known, unknown = home_with_models / "gguf" / "tinychat.gguf", tmp_path / "other.gguf"
    assert llamamgr("run", str(known), "hi").stdout.strip() == ANSWER
    assert [model.model for model in client.ps().models] == ["tinychat:latest"]
    shutil.copy(TINY, unknown)
    done = llamamgr("run", str(unknown), "hi")
    assert (done.stdout.strip(), "by --private" in done.stderr) == (ANSWER, True)
    assert len(client.ps().models) == 1
    gone = llamamgr("run", str(tmp_path / "gone.gguf"), "hi")
    assert (gone.returncode, "there is no file" in gone.stderr) == (4, True)


def test_the_command_line_pulls_from_the_hub_and_runs(client: ollama.Client, fake: FakeRegistry):
    other = bytearray(TINY.read_bytes())
    other[-4] ^= 1  # as good, and yet another model
    fake.repositories["org/repo"] = {"tiny-Q8_0.gguf": bytes(other)}
    done = llamamgr("pull", "hf:org/repo:Q8_0")
    assert done.returncode == 0, done.stderr
    assert (
        "pulling manifest" in done.stderr and done.stdout == 'next: llamamgr run hf:org/repo:Q8_0 "hello"\n'
    )
    assert llamamgr("run", "hf:org/repo:Q8_0", "hi").stdout.strip() == ANSWER
    missing = llamamgr("pull", "hf:org/repo:Q2_K")
    assert (missing.returncode, "there is: Q8_0" in missing.stderr) == (4, True)
    fake.refusals = {"/api/models": [401]}
    refused = llamamgr("pull", "hf:org/repo:Q8_0")
    assert (refused.returncode, "set HF_TOKEN" in refused.stderr) == (11, True)
    assert llamamgr("rm", "hf:org/repo:Q8_0").returncode == 0
    assert not client.ps().models
