"""Folders become models: parts, projectors, names, faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamamgr.core.cards import ModelCard
from llamamgr.models.index import Index
from llamamgr.models.scan import Root, find
from tests.models.conftest import Write


def names(index: Index) -> list[str]:
    return sorted(card.name for card in index.refresh().models if card.source != "embedded")


def faults(index: Index) -> dict[str, str]:
    return {Path(fault.path).name: fault.reason for fault in index.refresh().skipped}


def card_of(index: Index, name: str) -> ModelCard:
    return next(card for card in index.refresh().models if card.name == name)


def test_file_names_become_names_with_the_quant_as_tag(index: Index, write: Write):
    for name in (
        "tinychat.gguf",
        "Qwen3-4B-Instruct-2507-Q4_K_M.gguf",
        "odd näme (1).q8_0.gguf",
        "UPPER.GGUF",
    ):
        write(name)
    assert names(index) == [
        "Qwen3-4B-Instruct-2507:Q4_K_M",
        "UPPER:latest",
        "odd-n-me-1:Q8_0",
        "tinychat:latest",
    ]


def test_two_files_of_one_name_are_kept_apart_by_their_folders(index: Index, write: Write):
    for path in ("a/m.gguf", "b/m.gguf", "b/x/M.gguf", "c/b/m.gguf"):
        write(path)
    assert names(index) == ["M-x:latest", "m-b-2:latest", "m-b:latest", "m:latest"]
    assert card_of(index, "m:latest").path.endswith("a/m.gguf")


def test_a_file_called_selftest_does_not_take_the_embedded_ones_name(index: Index, write: Write):
    write("selftest.gguf")
    assert names(index) == ["selftest-models:latest"]
    assert card_of(index, "selftest:latest").source == "embedded"


def test_split_parts_are_one_model(index: Index, write: Write):
    paths = [
        write(f"big-Q8_0-0000{n + 1}-of-00003.gguf", size=4 * (n + 1), split__no=n, split__count=3)
        for n in range(3)
    ]
    card = card_of(index, "big:Q8_0")
    assert names(index) == ["big:Q8_0"]
    assert card.parts == tuple(map(str, paths))
    assert card.size == sum(path.stat().st_size for path in paths)
    assert card.parameters == 4 + 8 + 12


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_missing_part_is_named_and_the_model_not_listed(index: Index, write: Write, lost: int):
    for number in range(3):
        write(f"big-0000{number + 1}-of-00003.gguf", split__no=number, split__count=3)
    (folder_of(index) / f"big-0000{lost + 1}-of-00003.gguf").unlink()
    assert names(index) == []
    assert list(faults(index).values()) == [f"part {lost + 1} of 3 is missing or unreadable"]


def test_files_that_are_no_models_are_not_listed_and_no_fault(index: Index, write: Write):
    write("lora.gguf", general__type="adapter", adapter__type="lora")
    write("imatrix.gguf", general__type="imatrix")
    write("vector.gguf", general__architecture="controlvector")
    write("mtp-m.gguf")
    write("mmproj-m.gguf", general__architecture="clip")
    assert names(index) == []
    assert faults(index) == {}


def test_a_projector_goes_to_the_model_it_names(index: Index, write: Write):
    projector = write("mmproj-Qwen2-VL-2B-f16.gguf", general__architecture="clip")
    write("Qwen2-VL-2B-Instruct-Q4_K_M.gguf", tokenizer__chat_template="{{ messages }}")
    write("gemma-3-4b-Q4_K_M.gguf")
    seeing = card_of(index, "Qwen2-VL-2B-Instruct:Q4_K_M")
    assert (seeing.projector, seeing.capabilities) == (str(projector), ("completion", "vision"))
    assert card_of(index, "gemma-3-4b:Q4_K_M").projector == ""


def test_a_nameless_projector_goes_to_the_models_it_fits(index: Index, write: Write):
    projector = write("mmproj-F16.gguf", general__architecture="clip", clip__vision__projection_dim=16)
    write("fits-Q8_0.gguf")
    write("other-Q8_0.gguf", llama__embedding_length=7)
    write("sub/away-Q8_0.gguf")
    projectors = {card.name: card.projector for card in index.refresh().models if card.source != "embedded"}
    assert projectors == {"fits:Q8_0": str(projector), "other:Q8_0": "", "away:Q8_0": ""}


def test_broken_files_are_named_with_their_fault(index: Index, write: Write):
    folder = folder_of(index)
    whole = write("cut.gguf", size=64)
    whole.write_bytes(whole.read_bytes()[:-40])
    (folder / "html.gguf").write_bytes(b"<html>Not found</html>")
    (folder / "empty.gguf").touch()
    (folder / "zeros.gguf").write_bytes(bytes(4096))
    (folder / "m.gguf.part").touch()
    (folder / "n.gguf.incomplete").touch()
    (folder / "gone.gguf").symlink_to(folder / "nowhere.gguf")
    assert names(index) == []
    told = faults(index)
    assert told["cut.gguf"].startswith("incomplete: ")
    assert "not a GGUF file" in told["html.gguf"]
    assert "ends at byte 0" in told["empty.gguf"]
    assert "never written" in told["zeros.gguf"]
    assert told["m.gguf.part"] == told["n.gguf.incomplete"] == "an unfinished download"
    assert told["gone.gguf"] == "No such file or directory"


def test_a_folder_that_is_not_there_is_a_fault(index: Index):
    folder_of(index).rmdir()
    assert faults(index) == {"models": "No such file or directory"}


def test_links_are_followed_once_and_loops_end(index: Index, write: Write, tmp_path: Path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    write("a.gguf").rename(outside / "a.gguf")
    folder = folder_of(index)
    (folder / "link").symlink_to(outside)
    (folder / "again.gguf").symlink_to(outside / "a.gguf")
    (outside / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    assert names(index) == ["again:latest"]
    assert faults(index) == {}


def test_hidden_and_very_deep_folders_are_left_alone(index: Index, write: Write):
    write(".cache/hidden.gguf")
    write("/".join("abcdefgh") + "/deep.gguf")
    write("/".join("abcdefghi") + "/deeper.gguf")
    assert names(index) == ["deep:latest"]


def test_a_name_that_is_not_utf_8_is_told_and_breaks_nothing(index: Index, write: Write):
    write("good.gguf")
    (folder_of(index) / "bad\udcff.gguf").touch()
    assert names(index) == ["good:latest"]
    assert "its name is not UTF-8" in faults(index).values()


def test_what_is_found_does_not_depend_on_the_order_on_disk(folder: Path, write: Write):
    for name in ("c.gguf", "a.gguf", "b/z.gguf", "b.gguf"):
        write(name)
    found, _ = find([Root(str(folder), "x"), Root(str(folder / "b"), "y")])
    assert [Path(file.path).name for file in found] == ["a.gguf", "z.gguf", "b.gguf", "c.gguf"]
    assert {file.source for file in found} == {"x"}


def folder_of(index: Index) -> Path:
    return Path(index._config.models_dirs[0])


def test_a_pipe_that_looks_like_a_model_is_named_and_not_opened(tmp_path):
    import os

    from llamamgr.models.scan import Root, find

    os.mkfifo(tmp_path / "trap.gguf")
    found, skipped = find([Root(str(tmp_path), "here")])
    assert found == []
    assert [(file.path.rsplit("/")[-1], file.reason) for file in skipped] == [
        ("trap.gguf", "not a regular file")
    ]
