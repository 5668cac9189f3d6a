"""What is told of a model equals what a real Ollama told of the same files."""

from __future__ import annotations

import json

import msgspec
import pytest

from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Config
from llamamgr.host.paths import Paths
from llamamgr.models import details
from llamamgr.models.index import Index
from tests.golden import replay


@pytest.fixture
def index(paths: Paths) -> Index:
    return Index(paths, Config(models_dirs=(str(replay.MODELS),)))


def recorded(name: str) -> dict[str, object]:
    (exchange,) = replay.load([name])
    return json.loads(exchange.answer)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["show-by-name", "show-tagged", "show-upper", "show-embed"])
def test_show_tells_what_ollama_told(index: Index, name: str):
    (exchange,) = replay.load([name])
    card = index.resolve(exchange.json.get("model") or exchange.json["name"])
    ours = details.show_answer(card, index.header(card))
    theirs = recorded(name)
    theirs.pop("parameters", None)  # Ollama's own guess at a template for models without one
    assert replay.normalise(ours) == replay.normalise(theirs)
    assert list(ours) == list(theirs)
    assert list(ours["model_info"]) == list(theirs["model_info"])  # type: ignore[call-overload]


def test_tags_tell_what_ollama_told_but_for_the_capabilities_that_its_list_forgets(index: Index):
    theirs = {entry["name"]: entry for entry in recorded("tags")["models"]}  # type: ignore[attr-defined]
    for name in ("tinychat:latest", "tinyembed:latest"):
        ours = details.tags_entry(index.resolve(name))
        assert list(ours) == list(theirs[name])
        assert list(ours["details"]) == list(theirs[name]["details"])
        assert set(theirs[name].pop("capabilities")) <= set(ours.pop("capabilities"))
        assert replay.normalise(ours) == replay.normalise(theirs[name])


def test_verbose_tells_the_long_arrays(index: Index):
    card = index.resolve("tinychat")
    brief = details.model_info(card, index.header(card))
    whole = details.model_info(card, index.header(card, verbose=True), verbose=True)
    assert brief["tokenizer.ggml.tokens"] is None
    assert whole["tokenizer.ggml.tokens"][:3] == ("<unk>", "<s>", "</s>")
    assert details.model_info(card, index.header(card), verbose=True)["tokenizer.ggml.tokens"] is None


def test_a_system_text_is_told_and_written_into_the_modelfile(index: Index):
    card = index.resolve("tinychat")
    answer = details.show_answer(card, index.header(card), system='Say "hi".')
    assert answer["system"] == 'Say "hi".'
    assert 'SYSTEM """Say "hi"."""' in answer["modelfile"]
    assert f"FROM {card.path}\n" in answer["modelfile"]


def test_options_of_a_request_are_written_into_the_modelfile_alone(index: Index):
    settings = {"top_k": 3, "stop": ["X"], "num_ctx": 1048576, "num_predict": 131072, "min_p": 0.00001}
    card = msgspec.structs.replace(index.resolve("tinychat"), settings=settings)
    answer = details.show_answer(
        card, index.header(card), options={"top_k": 5, "stop": "Y", "use_mmap": True}
    )
    assert "PARAMETER num_ctx 1048576\n" in answer["modelfile"]
    assert answer["modelfile"].endswith("PARAMETER stop Y\nPARAMETER top_k 5\nPARAMETER use_mmap true\n")
    assert [line.split() for line in answer["parameters"].splitlines()] == [
        ["min_p", "1e-05"],
        ["num_ctx", "1.048576e+06"],
        ["num_predict", "131072"],
        ["stop", '"X"'],
        ["top_k", "3"],
    ]


def test_a_projector_is_told_beside_the_model(index: Index):
    card = index.resolve("tinychat")
    assert index.projector_header(card) is None
    seeing = msgspec.structs.replace(card, projector=index.resolve("tinyembed").path)
    answer = details.show_answer(seeing, index.header(seeing), projector=index.projector_header(seeing))
    told = answer["projector_info"]
    assert (told["llama.embedding_length"], told["general.parameter_count"]) == (288, 526_176)
    assert list(answer).index("projector_info") == list(answer).index("model_info") + 1


def test_only_show_tells_what_a_model_was_made_of(index: Index):
    card = msgspec.structs.replace(index.resolve("tinychat"), parent="other:latest")
    assert details.show_answer(card, index.header(card))["details"]["parent_model"] == "other:latest"
    assert details.tags_entry(card)["details"]["parent_model"] == ""
    assert details.details(card)["parent_model"] == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (451_520, "452K"),
        (1_000_000, "1M"),
        (22_713_216, "22.71M"),
        (1_235_814_432, "1.2B"),
        (7_000_000_000, "7B"),
        (671_026_419_200, "671.0B"),
    ],
)
def test_weights_are_counted_as_ollama_counts(count: int, text: str):
    assert details.human_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1.5, "1970-01-01T00:00:01.5Z"),
        (1_763_000_000.25, "2025-11-13T02:13:20.25Z"),
    ],
)
def test_times_are_written_as_go_writes_them(seconds: float, text: str):
    assert details.rfc3339(seconds) == text


def test_a_real_quantisation_is_told_by_name():
    card = ModelCard("m:Q4_K_M", "d" * 64, ("/m.gguf",), 1, 0.0, quant="Q4_K_M", arch="qwen3")
    assert details.details(card)["quantization_level"] == "Q4_K_M"
    assert details.details(card)["families"] == ["qwen3"]
