"""Names find models; files are read once; other processes and damage are survived."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llamamgr.core.config import Config, parse_config
from llamamgr.core.errors import ConflictError, InvalidNameError, NotFoundError
from llamamgr.core.gguf import LongArray
from llamamgr.core.names import ModelName
from llamamgr.host.paths import Paths
from llamamgr.models import create as making
from llamamgr.models import index as index_module
from llamamgr.models.index import Index
from llamamgr.models.scan import find
from tests.fakes.clock import Clock
from tests.golden.replay import MODELS
from tests.models.conftest import Write


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read, as they are."""
    seen: list[str] = []
    real = index_module.read_facts

    def counted(path: str, size: int, modified: int):  # type: ignore[no-untyped-def]
        seen.append(Path(path).name)
        return real(path, size, modified)

    monkeypatch.setattr(index_module, "read_facts", counted)
    return seen


def test_the_embedded_model_is_always_there(paths: Paths):
    card = Index(paths, Config()).resolve("selftest")
    assert (card.name, card.source, Path(card.path).exists()) == ("selftest:latest", "embedded", True)
    assert set(card.capabilities) == {"completion", "tools", "thinking"}
    assert len(card.digest) == 64


def test_models_of_the_own_store_and_of_configured_folders_are_found(
    paths: Paths, index: Index, write: Write
):
    paths.models.mkdir(parents=True)
    write("kept.gguf").rename(paths.models / "kept.gguf")
    write("seen.gguf")
    sources = {card.name: card.source for card in index.refresh().models}
    assert sources == {
        "kept:latest": "store",
        "seen:latest": index._config.models_dirs[0],
        "selftest:latest": "embedded",
    }


@pytest.mark.parametrize(
    "spelling",
    [
        "TINYCHAT",
        "tinychat:latest",
        "registry.ollama.ai/library/tinychat:latest",
        "library/tinychat",
        " tinychat\n",
        "tinychat:local",
        "tinychat:latest:LOCAL",
        "tinychat ",
    ],
)
def test_any_spelling_of_a_name_finds_it(paths: Paths, spelling: str):
    index = Index(paths, Config(models_dirs=(str(MODELS),)))
    assert index.recall(spelling) is None, "nothing has been looked at"
    assert index.resolve(spelling).name == "tinychat:latest"
    known = index.recall(spelling)  # a name that has to be mended is for ``resolve``
    assert known is None or known.name == "tinychat:latest"


def test_a_name_cannot_be_of_here_and_of_a_cloud(index: Index):
    with pytest.raises(InvalidNameError, match='use either :local or :cloud, not both: "x:local:cloud"'):
        index.resolve("x:local:cloud")


def test_what_is_deleted_is_named_in_full(index: Index, write: Write):
    write("only-Q8_0.gguf")
    card = index.resolve("only")
    assert card.name == "only:Q8_0"
    assert index.require_itself("ONLY:q8_0", card) == card
    with pytest.raises(NotFoundError, match="model 'only' not found") as refused:
        index.require_itself("only", card)
    assert refused.value.hint == "there is only:Q8_0"


def test_one_of_a_hub_is_named_by_its_repository_while_it_is_its_only_one(index: Index, write: Write):
    write("m-Q8_0.gguf")
    for tag in ("Q4_K_M", "Q8_0"):
        making.copy(index.store, index.resolve("m"), ModelName.parse(f"hf.co/o/r:{tag}"))
        index.refresh()
        card = index.resolve("hf.co/o/r")
        if tag == "Q4_K_M":
            assert index.require_itself("hf.co/o/r", card) == index.require_itself("hf:o/r", card) == card
    with pytest.raises(NotFoundError):
        index.require_itself("hf.co/o/r", card)


def test_a_tag_called_local_comes_before_ollamas_word_for_models_that_are_here(index: Index, write: Write):
    write("m.gguf")
    assert index.resolve("m:local").name == "m:latest"
    making.copy(index.store, index.resolve("m"), ModelName.parse("m:local"))
    index.refresh()
    assert index.resolve("m:local").name == "m:local"
    with pytest.raises(InvalidNameError):
        index.resolve(":local")


def test_without_a_tag_the_best_quant_answers(index: Index, write: Write, clock: Clock):
    for quant, best in (("IQ1_S", "m:IQ1_S"), ("Q8_0", "m:Q8_0"), ("Q4_K_M", "m:Q4_K_M")):
        write(f"m-{quant}.gguf")
        clock.now += 5
        assert index.resolve("m").name == best
    write("m.gguf")
    clock.now += 5
    assert index.resolve("m").name == "m:latest"
    assert index.resolve("M:q8_0").name == "m:Q8_0"
    with pytest.raises(NotFoundError):
        index.resolve("m:Q2_K")


def test_an_unknown_name_is_told_with_near_ones(index: Index, write: Write):
    write("qwen3-4b-Q4_K_M.gguf")
    with pytest.raises(NotFoundError, match=r"^model 'qwen3-4' not found") as caught:
        index.resolve("qwen3-4")
    assert "qwen3-4b:Q4_K_M" in caught.value.hint
    with pytest.raises(InvalidNameError):
        index.resolve("no name!")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("nix", ()),
        ("nope:latest", ()),
        ("nonexist", ()),
        ("tinychap", ("tinychat:latest",)),
        ("llama", ("Llama-3.2-1B-Instruct:Q8_0",)),
        ("tinychat:q4", ("tinychat:latest",)),
        ("Llama-3.2-1B-Instruct:Q8", ("Llama-3.2-1B-Instruct:Q8_0", "Llama-3.2-1B-Instruct:Q4_K_M")),
    ],
)
def test_a_name_is_near_by_more_than_its_tag(index: Index, write: Write, wanted: str, meant: tuple[str, ...]):
    for name in ("tinychat", "tinyembed", "Llama-3.2-1B-Instruct-Q8_0", "Llama-3.2-1B-Instruct-Q4_K_M"):
        write(f"{name}.gguf")
    with pytest.raises(NotFoundError) as caught:
        index.resolve(wanted)
    told = caught.value.hint.partition("?")[0].removeprefix("did you mean ").split(" or ")
    if meant:
        assert tuple(told[: len(meant)]) == meant
    else:
        assert caught.value.hint == "`llamamgr list` shows what there is"


def test_unchanged_files_are_not_read_again_even_by_another_process(
    paths: Paths, index: Index, write: Write, reads: list[str]
):
    write("a.gguf")
    write("b.gguf")
    index.refresh()
    assert sorted(reads) == ["a.gguf", "b.gguf", "selftest.gguf"]
    reads.clear()
    index.refresh()
    Index(paths, index._config).refresh()
    assert reads == []


def test_a_changed_file_is_read_again_and_its_digest_differs(
    index: Index, write: Write, clock: Clock, reads: list[str]
):
    write("a.gguf")
    before = index.resolve("a")
    reads.clear()
    write("a.gguf", llama__context_length=128)
    clock.now += 2
    after = index.resolve("a")
    assert (reads, before.context, after.context) == (["a.gguf"], 64, 128)
    assert before.digest != after.digest


def test_the_digest_is_the_files_own_wherever_it_lies(index: Index, write: Write, folder: Path):
    path = write("a.gguf")
    digest = index.resolve("a").digest
    path.rename(folder / "b.gguf")
    os.utime(folder / "b.gguf", (1, 1))
    index.refresh()
    moved = index.resolve("b")
    assert (moved.digest, moved.modified) == (digest, 1.0)


def test_a_model_that_appears_is_found_on_the_first_miss(index: Index, write: Write, clock: Clock):
    index.refresh()
    clock.now += 0.1
    write("new.gguf")
    assert index.resolve("new").name == "new:latest"


def test_asking_again_within_a_second_looks_at_no_disk(
    index: Index, write: Write, clock: Clock, folder: Path
):
    write("a.gguf")
    index.resolve("a")
    (folder / "a.gguf").unlink()
    clock.now += 0.9
    assert index.resolve("a").name == "a:latest"
    clock.now += 0.2
    with pytest.raises(NotFoundError):
        index.resolve("a")


def test_a_new_configuration_waits_for_no_look_and_holds_once_it_is_given(
    paths: Paths, folder: Path, write: Write, monkeypatch
):
    write("a.gguf")
    index, former = Index(paths, Config()), find
    begun, go_on = threading.Event(), threading.Event()

    def slow(roots: object) -> object:
        begun.set()
        assert go_on.wait(10)
        return former(roots)

    monkeypatch.setattr(index_module, "find", slow)
    looking = threading.Thread(target=index.refresh)
    looking.start()
    assert begun.wait(10)
    index.reconfigure(Config(models_dirs=(str(folder),)))
    go_on.set()
    looking.join()
    assert index.recall("a") is None, "what was seen under the former one does not count"
    assert index.resolve("a").name == "a:latest"


def test_a_name_that_is_not_there_costs_no_look_when_it_is_only_looked_up(
    paths: Paths, folder: Path, write: Write, reads: list[str], monkeypatch
):
    write("a.gguf")
    config = parse_config({"models_dirs": [str(folder)], "models": {"a": {"aliases": ["gpt"]}}})
    index = Index(paths, config)
    found = index.find("GPT")
    assert found is not None
    assert found.name == "a:latest"
    monkeypatch.setattr(index_module, "find", None)  # nothing is looked at
    assert index.find("none") is None
    assert index.find("no name at all/") is None


def test_an_alias_need_not_be_what_a_model_may_be_called(paths: Paths, folder: Path, write: Write):
    write("a.gguf")
    aliases = ["My Model", "claude@2025"]
    index = Index(paths, parse_config({"models_dirs": [str(folder)], "models": {"a": {"aliases": aliases}}}))
    for alias in aliases:
        for name in (alias, f"{alias}:latest", alias.upper()):
            card = index.beyond_pulling(name)
            assert card is not None
            assert card.name == index.resolve(name).name == "a:latest"
    with pytest.raises(InvalidNameError):
        index.beyond_pulling("no name at all/")


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100, None])
def test_a_spoiled_cache_is_made_anew(
    paths: Paths, index: Index, write: Write, damage: bytes | None, reads: list[str]
):
    write("a.gguf")
    index.refresh()
    database = paths.cache / "models.sqlite"
    if damage is None:
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE files SET facts = X'c1c1'")
        connection.close()
    else:
        database.write_bytes(damage)
    for expected in (["a.gguf", "selftest.gguf"], []):
        reads.clear()
        assert Index(paths, index._config).resolve("a").name == "a:latest"
        assert sorted(reads) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(paths: Paths, index: Index, write: Write):
    write("a.gguf")
    paths.cache.mkdir(parents=True)
    (paths.cache / "models.sqlite").mkdir()
    assert index.resolve("a").name == "a:latest"


def test_files_of_other_configurations_stay_remembered(
    paths: Paths, index: Index, write: Write, reads: list[str]
):
    write("a.gguf")
    index.refresh()
    Index(paths, Config()).refresh()
    reads.clear()
    Index(paths, index._config).refresh()
    assert reads == []


def test_processes_and_threads_may_look_at_once(paths: Paths, folder: Path, write: Write):
    for number in range(20):
        write(f"m{number}.gguf")
    code = (
        "import sys; from llamamgr.core.config import Config; from llamamgr.host.paths import Paths\n"
        "from llamamgr.models.index import Index\n"
        "index = Index(Paths.of_environment(), Config(models_dirs=(sys.argv[1],)))\n"
        "print(len(index.refresh().models))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    index = Index(paths, Config(models_dirs=(str(folder),)))
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(len(index.refresh().models))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert (counts, said) == ([21] * 4, ["21"] * 3)


def test_a_header_has_the_tensors_of_all_parts_and_long_arrays_on_demand(index: Index, write: Write):
    for number in range(2):
        write(f"big-0000{number + 1}-of-00002.gguf", split__no=number, split__count=2, words=["w"] * 100)
    card = index.resolve("big")
    assert len(index.header(card).tensors) == 2
    assert index.header(card).metadata["words"] == LongArray("string", 100)
    assert len(index.header(card, verbose=True).metadata["words"]) == 100


def test_a_file_that_went_away_is_a_clear_error(index: Index, write: Write, folder: Path):
    write("a.gguf")
    card = index.resolve("a")
    (folder / "a.gguf").unlink()
    with pytest.raises(ConflictError, match=r"a\.gguf cannot be read"):
        index.header(card)


def test_cards_are_plain_data(index: Index, write: Write):
    import msgspec

    write("a.gguf")
    assert json.loads(msgspec.json.encode(index.refresh()))["models"]


def test_a_name_is_recalled_from_memory_only_while_that_is_fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOME", str(tmp_path / "home"))
    now = [0.0]
    index = Index(Paths.of_environment(), Config(), clock=lambda: now[0])
    assert index.recall("selftest") is None
    known = index.resolve("selftest")
    assert index.recall("SELFTEST:latest") == known
    assert index.recall("nope") is None
    now[0] = 1.0
    assert index.recall("selftest") is None


def test_the_name_of_an_unusable_file_is_answered_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOME", str(tmp_path / "home"))
    (tmp_path / "half.gguf").write_bytes((MODELS / "tinychat.gguf").read_bytes()[:100_000])
    index = Index(Paths.of_environment(), Config(models_dirs=(str(tmp_path),)))
    with pytest.raises(NotFoundError) as caught:
        index.resolve("half")
    assert "incomplete" in caught.value.hint


def test_a_header_with_impossible_numbers_is_named_and_hides_nothing(tmp_path, monkeypatch):
    from llamamgr.models.writer import gguf_bytes

    monkeypatch.setenv("LLAMAMGR_HOME", str(tmp_path / "home"))
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2**31 - 1,
        "llama.attention.head_count_kv": 2**31 - 1,
    }
    metadata |= {
        "llama.attention.head_count": 2**31 - 1,
        "llama.attention.key_length": 2**31 - 1,
        "llama.context_length": 5,
    }
    (tmp_path / "absurd.gguf").write_bytes(gguf_bytes(metadata, []))
    listing = Index(Paths.of_environment(), Config(models_dirs=(str(tmp_path),))).refresh()
    assert [card.name for card in listing.models] == ["selftest:latest"]
    assert [file.path.rsplit("/")[-1] for file in listing.skipped] == ["absurd.gguf"]


def test_two_checkpoints_of_one_training_are_two_models(index: Index, write: Write):
    """Their headers and sizes are the same, and yet one must never answer for the other."""
    first, second = write("one.gguf", size=100_000), write("two.gguf", size=100_000)
    data = bytearray(second.read_bytes())
    for place in range(200_000, len(data), 1000):
        data[place] ^= 1
    second.write_bytes(data)
    assert first.read_bytes()[:1000] == second.read_bytes()[:1000]
    assert index.resolve("one").digest != index.resolve("two").digest
