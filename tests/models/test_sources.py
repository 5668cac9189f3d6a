"""Models of other programs: found where they lie, by the names their users know, and never touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from llamamgr.core.config import Config
from llamamgr.core.errors import DiskFullError, PermissionDeniedError
from llamamgr.host.paths import Paths
from llamamgr.models.create import delete
from llamamgr.models.index import Index
from llamamgr.models.manifest import KIND
from tests.models.conftest import Write

GO = "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Tools }}"


def names(paths: Paths, *sources: str) -> dict[str, str]:
    config = Config(sources=sources) if sources else Config()
    return {
        card.name: card.source for card in Index(paths, config).refresh().models if card.source != "embedded"
    }


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Path:
    """Ollama's own store with one model."""
    root = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    write("made.gguf", tokenizer__chat_template="{{ messages }}")
    model = (tmp_path / "models" / "made.gguf").read_bytes()
    shutil.rmtree(tmp_path / "models")

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs").mkdir(parents=True, exist_ok=True)
        (root / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def add(name: str, config: object, **layers: bytes) -> None:
        path = root / "manifests" / "registry.ollama.ai" / "library" / name / "1b"
        path.parent.mkdir(parents=True)
        rows = [blob(KIND + kind, data) for kind, data in layers.items()]
        path.write_text(
            json.dumps(
                {"schemaVersion": 2, "config": blob("config", json.dumps(config).encode()), "layers": rows}
            )
        )

    params = json.dumps({"stop": ["<x>"], "temperature": 0.5}).encode()
    add("llama", {}, model=model, template=GO.encode(), params=params, system=b"Hi.", license=b"MIT")
    add("rendered", {"renderer": "x"}, model=model, template=b"{{ .Prompt }}")
    add("cloudy", {"remote_host": "https://ollama.com"}, template=b"")
    return root


def test_ollamas_store_is_read_in_place_with_all_that_a_model_has(paths: Paths, ollama: Path):
    index = Index(paths, Config())
    card = index.resolve("llama:1b")
    assert (card.source, card.system, card.licenses) == ("ollama", "Hi.", ("MIT",))
    assert (card.template, card.settings) == (GO, {"stop": ["<x>"], "temperature": 0.5})
    assert card.capabilities == ("tools", "completion")
    assert Path(card.path).parent == ollama / "blobs"
    manifest = ollama / "manifests/registry.ollama.ai/library/llama/1b"
    assert card.manifest == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert index.resolve("rendered:1b").template == ""
    assert any(fault.reason == "a model of Ollama's cloud" for fault in index.listing().skipped)


def test_a_foreign_model_is_not_deleted(paths: Paths, ollama: Path):
    index = Index(paths, Config())
    before = sorted(ollama.rglob("*"))
    with pytest.raises(PermissionDeniedError):
        delete(index.store, index.resolve("llama:1b"))
    assert sorted(ollama.rglob("*")) == before


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Path:
    """The hub's cache with two snapshots, of which refs/main names the older one."""
    root = tmp_path / "hub"
    monkeypatch.delenv("LLAMA_CACHE")
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    repository = root / "models--org--Some-Model-GGUF"
    for number, commit in enumerate(("aaa", "bbb")):
        for name in ("m-Q4_K_M.gguf", "Q8_0/plain.gguf"):
            link = repository / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            blob = repository / "blobs" / f"{commit}{name.replace('/', '-')}"
            blob.parent.mkdir(exist_ok=True)
            write("x.gguf", size=4 * (number + 1), general__name=name).rename(blob)
            link.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    (repository / "snapshots" / "aaa" / "gone-Q2_K.gguf").symlink_to(repository / "blobs" / "never")
    (root / "models--odd").mkdir()
    return root


def test_the_hubs_cache_gives_the_snapshot_of_main_by_the_repositorys_name(paths: Paths, hub: Path):
    found = Index(paths, Config()).refresh()
    told = {card.name: card.path for card in found.models if card.source == "huggingface"}
    assert set(told) == {"hf.co/org/Some-Model-GGUF:Q4_K_M", "hf.co/org/Some-Model-GGUF:plain"}
    assert all("/snapshots/aaa/" in path for path in told.values())
    index = Index(paths, Config())
    assert index.resolve("hf:org/some-model-gguf:q4_k_m").path == told["hf.co/org/Some-Model-GGUF:Q4_K_M"]
    assert index.resolve("hf:org/Some-Model-GGUF").name == "hf.co/org/Some-Model-GGUF:Q4_K_M"


def test_llama_cpps_flat_cache_is_read_by_the_manifests_beside_the_files(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, write: Write
):
    root = tmp_path / "flat"
    root.mkdir()
    monkeypatch.setenv("LLAMA_CACHE", str(root))
    write("x.gguf").rename(root / "org_Repo-GGUF_m-Q4_K_M.gguf")
    write("x.gguf", size=8).rename(root / "unknown_m-Q8_0.gguf")
    (root / "manifest=org=Repo-GGUF=latest.json").write_text("{}")
    assert names(paths, "llama.cpp") == {
        "hf.co/org/Repo-GGUF:Q4_K_M": "llama.cpp",
        "unknown_m:Q8_0": "llama.cpp",
    }


def test_lm_studios_folder_is_read_by_its_files_names(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, write: Write
):
    monkeypatch.setenv("HOME", str(tmp_path))
    target = tmp_path / ".lmstudio" / "models" / "publisher" / "repo" / "Qwen-Q4_K_M.gguf"
    target.parent.mkdir(parents=True)
    write("x.gguf").rename(target)
    assert names(paths, "lmstudio") == {"Qwen:Q4_K_M": "lmstudio"}


def test_a_source_that_is_switched_off_is_not_looked_at(paths: Paths, ollama: Path, hub: Path):
    assert set(names(paths, "store", "huggingface").values()) == {"huggingface"}
    assert set(names(paths, "ollama").values()) == {"ollama"}
    assert set(names(paths).values()) == {"ollama", "huggingface"}
    assert names(paths, "folders") == {}


def test_blobs_and_manifests_of_the_own_store_are_not_taken_for_loose_files(paths: Paths, write: Write):
    index = Index(paths, Config())
    store = index.store.root
    (store / "blobs").mkdir(parents=True)
    write("x.gguf").rename(store / "blobs" / "odd.gguf")
    write("x.gguf").rename(store / "loose.gguf")
    assert names(paths) == {"loose:latest": "store"}


def test_a_full_disk_under_the_embedded_model_hides_no_other(
    paths: Paths, ollama: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path) -> Path:
        raise DiskFullError("no space left while writing it")

    monkeypatch.setattr("llamamgr.models.selftest.ensure", full)
    listing = Index(paths, Config(sources=("ollama",))).refresh()
    assert "llama:1b" in [card.name for card in listing.models]
    assert [one.reason for one in listing.skipped if "selftest" in one.path] == [
        "no space left while writing it"
    ]
