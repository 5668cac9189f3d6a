"""The whole way of a model: Hugging Face folder → GGUF → fewer bits → chat, with the real scripts and tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from llamamgr.core.cards import Build
from tests.conftest import _cache
from tests.e2e.conftest import Daemon, llamamgr
from tests.fakes import tiny_hf_model
from tests.fakes.hub import Hub

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture
def environments(real_build: Build, own_home: Path) -> Iterator[Path]:
    """The folder of Python environments, kept for later runs: the one for conversions takes half a minute and 1.1 GB."""
    kept = _cache() / "python"
    kept.mkdir(exist_ok=True)
    (own_home / "data" / "python").symlink_to(kept)
    with filelock.FileLock(_cache() / "python.lock", timeout=600):
        yield kept


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_hf_model.write(tmp_path / "Tiny-Llama")


def say(daemon: Daemon, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hum"}], "stream": False}
    return str(daemon.post("/api/chat", body)["message"]["content"])


def test_a_hugging_face_llama_is_converted_quantized_and_chats(
    environments: Path, own_home: Path, model: Path
):
    done = llamamgr("convert", "--input", str(model), "--type", "f16", timeout=800)
    assert done.returncode == 0, done.stderr
    converted = own_home / "data" / "models" / "Tiny-Llama-F16.gguf"
    assert str(converted) in done.stdout and "next: llamamgr run Tiny-Llama:F16" in done.stdout
    assert "converting Tiny-Llama 100 %" in done.stderr

    done = llamamgr("quantize", "-i", "Tiny-Llama:F16", "-q", "Q4_K_M", "-q", "q8_0", "--json")
    assert done.returncode == 0, done.stderr
    assert [made["name"] for made in json.loads(done.stdout)] == ["Tiny-Llama:Q4_K_M", "Tiny-Llama:Q8_0"]

    daemon = Daemon(own_home)
    try:
        for tag in ("F16", "Q4_K_M", "Q8_0"):
            assert say(daemon, f"Tiny-Llama:{tag}") == tiny_hf_model.ANSWER
    finally:
        daemon.stop()
    assert len([path for path in environments.iterdir() if not path.name.startswith(".")]) == 1
    assert [path.name for path in converted.parent.iterdir() if path.name.startswith(".")] == []


def test_one_command_converts_and_quantizes_and_keeps_only_what_was_asked_for(
    environments: Path, model: Path, tmp_path: Path
):
    out = tmp_path / "out"
    done = llamamgr("convert", "-i", str(model), "-q", "Q4_K_M", "-o", f"{out}/", timeout=800)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["Tiny-Llama-Q4_K_M.gguf"]
    assert "add" in done.stdout and "models_dirs" in done.stdout
    again = llamamgr("convert", "-i", str(model), "-q", "Q4_K_M", "-o", f"{out}/")
    assert again.returncode == 5 and "exists already" in again.stderr
    (out / "Tiny-Llama-F16.gguf").write_text("somebody's")
    for words in ((), ("--type", "f16")):
        again = llamamgr("convert", "-i", str(model), "-o", f"{out}/", *words)
        assert again.returncode == 5 and "exists already" in again.stderr and "converting" not in again.stderr
    (out / "Tiny-Llama-F16.gguf").unlink()
    seen = llamamgr("convert", "-i", str(model), "-o", f"{out}/", "--mmproj")
    assert seen.returncode == 13 and "leave --mmproj out" in seen.stderr
    assert "converting Tiny-Llama" not in seen.stderr  # what is quick and may fail comes first
    done = llamamgr(
        "convert", "-i", str(model), "-q", "Q4_K_M", "-o", f"{out}/", "-f", "--keep", "--type", "bf16"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["Tiny-Llama-BF16.gguf", "Tiny-Llama-Q4_K_M.gguf"]


def test_a_repository_of_a_hub_is_fetched_and_converted(environments: Path, model: Path, tmp_path: Path):
    with Hub({"org/tiny": model}) as hub:
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        done = llamamgr("convert", "-i", "org/tiny", "-o", str(tmp_path / "t.gguf"), env=home, timeout=800)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "t.gguf").is_file() and "fetching org/tiny" in done.stderr
        missing = llamamgr("convert", "-i", "org/nothing", env=home)
        assert missing.returncode == 4 and "there is no repository org/nothing" in missing.stderr


def test_an_adapter_is_converted_with_the_base_that_it_names(environments: Path, model: Path, tmp_path: Path):
    adapter = tiny_hf_model.write_lora(tmp_path / "humming", str(model))
    done = llamamgr("convert", "--lora", "-i", str(adapter), "-o", f"{tmp_path}/", timeout=800)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "humming-F16.gguf").is_file() and "--lora" in done.stdout


def test_what_the_script_cannot_convert_is_told_in_its_words_and_leaves_nothing(
    environments: Path, own_home: Path, model: Path
):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["AbacusForCausalLM"]}))
    done = llamamgr("convert", "-i", str(model), timeout=800)
    assert done.returncode == 13
    assert "Model AbacusForCausalLM is not supported" in done.stderr and "newer llama.cpp" in done.stderr
    assert list((own_home / "data" / "models").iterdir()) == []


def test_a_model_with_code_is_refused_before_any_weight_is_fetched(
    environments: Path, model: Path, tmp_path: Path
):
    (model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.X", null]}}')
    with Hub({"org/code": model}) as hub:
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        done = llamamgr("convert", "-i", "org/code", env=home)
        assert done.returncode == 11 and "--trust-remote-code" in done.stderr
        assert not [path for path in hub.asked if "safetensors" in path]


def test_quantize_lists_types_tells_sizes_and_passes_options_on(
    real_build: Build, own_home: Path, tmp_path: Path
):
    listed = llamamgr("quantize")
    assert "Q4_K_M" in listed.stdout and "BITS/WEIGHT" in listed.stdout
    told = llamamgr("quantize", "-i", "selftest", "-q", "q4_k", "-q", "Q8_0", "--dry-run", "--json")
    sizes = {one["type"]: one["after"] for one in json.loads(told.stdout)}
    assert 0 < sizes["Q4_K_M"] < sizes["Q8_0"] and not (own_home / "data" / "models").exists()
    target = tmp_path / "mixed-{type}.gguf"
    words = ("quantize", "-i", "selftest", "-q", "Q4_K_M", "-o", str(target), "--tensor-type", "attn_q=q8_0")
    done = llamamgr(*words, "--", "--leave-output-tensor")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mixed-Q4_K_M.gguf").stat().st_size > sizes["Q4_K_M"]
    for arguments, code in (
        (("-i", "selftest", "-q", "Q9"), 2),
        (("-i", "selftest"), 2),
        (("-i", "nothing", "-q", "Q8_0"), 4),
        (("-i", str(tmp_path / "no.gguf"), "-q", "Q8_0"), 4),
        (("-i", str(tmp_path / "mixed-Q4_K_M.gguf"), "-q", "Q8_0"), 13),
        (("-i", "selftest", "-q", "Q8_0", "--", "--bogus"), 13),
        (("-i", "selftest", "-q", "Q8_0", "-o", str(tmp_path / "gone" / "a.gguf")), 4),
        (("-i", "selftest", "-q", "Q8_0", "-o", f"{tmp_path}/gone/deeper/"), 4),
    ):
        failed = llamamgr("quantize", *arguments)
        assert failed.returncode == code and "hint: " in failed.stderr, failed.stderr
    assert f"there is no folder {tmp_path}/gone" in failed.stderr and not (tmp_path / "gone").exists()


def test_bench_shows_figures_remembers_them_and_draws_them(real_build: Build, own_home: Path, tmp_path: Path):
    few = ("--", "-p", "32", "-n", "8", "-r", "3")
    done = llamamgr("bench", "--svg", str(tmp_path / "b.svg"), *few)
    assert done.returncode == 0, done.stderr
    assert "pp32" in done.stdout and "tg8" in done.stdout and "±" in done.stdout
    assert (tmp_path / "b.svg").read_text().startswith("<svg")
    history = own_home / "state" / "bench" / "default.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(records) == 2
    past = [
        record | {"build": "b1-old-cpu", "number": 1, "speed": record["speed"] * 1_000_000}
        for record in records
    ]
    history.write_text("".join(json.dumps(record) + "\n" for record in past))
    slower = llamamgr("bench", *few)
    for bad, code in (("b.png", 2), ("none/b.svg", 4)):
        refused = llamamgr("bench", "--svg", str(tmp_path / bad), *few)
        assert refused.returncode == code and "measuring" not in refused.stderr, refused.stderr
    assert "slower: default b11434 pp32 is 100% below b1-old-cpu" in slower.stdout
    assert "llamamgr bisect --instance default --good b1 --bad b" in slower.stdout
    again = json.loads(llamamgr("bench", "--json", *few).stdout)
    assert len(again["now"]) == len(again["past"]) == len(again["drops"]) == 2
    assert llamamgr("bench", "--", "--bogus").returncode == 13
    shutil.rmtree(history.parent)
    history.parent.write_text("")  # there is no folder to keep it in
    unkept = llamamgr("bench", *few)
    assert unkept.returncode == 0 and "pp32" in unkept.stdout, "what was measured is not lost"
    assert "warning: it is not kept for later: " in unkept.stderr
