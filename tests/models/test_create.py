"""Models made of others: weights stay where they are, texts are laid over, and each is a model like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError, PermissionDeniedError, UsageError
from llamamgr.core.names import ModelName
from llamamgr.models.create import Wanted, copy, create, delete
from llamamgr.models.details import digest, modelfile, parameters_text, show_answer
from llamamgr.models.index import Index
from llamamgr.models.progress import Progress
from llamamgr.models.writer import F32Tensor, gguf_bytes
from tests.models.conftest import Write

JINJA = "{% for m in messages %}{{ m.content }}{% endfor %}"
GO = "{{ if .System }}{{ .System }} {{ end }}{{ range .Messages }}{{ .Content }}{{ .Thinking }}{{ end }}{{ .Suffix }}"


def wanted(name: str, base: ModelCard | None = None, **more: object) -> Wanted:
    return Wanted(ModelName.parse(name), base, parent=base.name if base else "", **more)  # type: ignore[arg-type]


@pytest.fixture
def base(index: Index, write: Write) -> ModelCard:
    write("base.gguf", tokenizer__chat_template=JINJA, general__file_type=1)
    return index.resolve("base")


@pytest.fixture
def make(index: Index) -> Callable[..., ModelCard]:
    def _make(name: str, base: ModelCard | None = None, **more: object) -> ModelCard:
        create(index.store, wanted(name, base, **more), lambda progress: None)
        index.refresh()
        return index.resolve(name)

    return _make


def test_a_made_model_has_its_own_texts_over_the_weights_of_its_base(
    base: ModelCard, make: Callable[..., ModelCard]
):
    card = make(
        "derived",
        base,
        system="Be brief.",
        template=GO,
        settings={"temperature": 0.1, "stop": ["X"]},
        messages=(("user", "q"), ("assistant", "a")),
        licenses=("MIT",),
    )
    assert (card.parts, card.digest, card.source) == (base.parts, base.digest, "store")
    assert (card.system, card.template, card.messages) == (
        "Be brief.",
        GO,
        (("user", "q"), ("assistant", "a")),
    )
    assert (card.settings, card.licenses) == ({"temperature": 0.1, "stop": ["X"]}, ("MIT",))
    assert (card.parent, card.chat_template) == ("base:latest", JINJA)
    assert card.capabilities == ("thinking", "completion", "insert")
    assert card.manifest and digest(card) == card.manifest != base.digest


def test_weights_are_not_copied(base: ModelCard, make: Callable[..., ModelCard], index: Index):
    make("derived", base, system="x")
    biggest = max(path.stat().st_size for path in (index.store.root / "blobs").iterdir())
    assert biggest < 200


def test_a_model_of_a_made_model_inherits_and_overrides(base: ModelCard, make: Callable[..., ModelCard]):
    first = make("first", base, system="one", settings={"seed": 1, "top_k": 5}, licenses=("MIT",))
    second = make("second", first, system="two", settings={"seed": 2}, licenses=("Apache",))
    assert (second.system, second.settings) == ("two", {"seed": 2, "top_k": 5})
    assert (second.licenses, second.parent, second.parts) == (("MIT", "Apache"), "first:latest", base.parts)


def test_the_steps_are_told_as_ollama_tells_them(base: ModelCard, index: Index):
    told: list[Progress] = []
    create(index.store, wanted("x", base, system="s", settings={"seed": 1}), told.append)
    words = [progress.status.split("sha256:")[0] for progress in told]
    assert words == [
        "using existing layer ",
        "creating new layer ",
        "creating new layer ",
        "writing manifest",
        "success",
    ]


def test_files_of_their_own_make_a_model_of_all_its_parts(write: Write, make: Callable[..., ModelCard]):
    parts = [write(f"m-0000{n}-of-00002.gguf", split__no=n - 1, split__count=2) for n in (2, 1)]
    card = make("split", files=tuple(parts))
    assert card.parts == (str(parts[1]), str(parts[0]))


def test_an_adapter_makes_another_child_of_the_same_file(
    base: ModelCard, write: Write, make: Callable[..., ModelCard]
):
    adapter = write("lora.gguf", general__type="adapter", adapter__type="lora")
    card = make("tuned", base, adapters=(adapter,))
    assert card.adapters == (str(adapter),) and card.digest != base.digest
    assert make("again", card).digest == card.digest


def test_a_projector_beside_the_files_is_used(write: Write, make: Callable[..., ModelCard]):
    files = (write("eye.gguf", general__architecture="clip", clip__has_vision_encoder=True), write("m.gguf"))
    card = make("seeing", files=files)
    assert (card.projector, card.parts) == (str(files[0]), (str(files[1]),))
    assert "vision" in card.capabilities


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.gguf", "b.gguf"), "several models among the files"),
        (("m-00001-of-00002.gguf",), "part 1 of 2 alone is no model"),
        (("lora.gguf",), "no model among the files"),
        (("text.gguf",), "supplied file was not in GGUF format"),
    ],
)
def test_files_that_make_no_model_are_refused(
    names: tuple[str, ...], message: str, write: Write, folder: Path, index: Index
):
    write("a.gguf"), write("b.gguf")
    write("m-00001-of-00002.gguf", split__no=0, split__count=2)
    write("lora.gguf", general__type="adapter")
    (folder / "text.gguf").write_text("hello")
    with pytest.raises(UsageError) as caught:
        create(index.store, wanted("x", files=tuple(folder / name for name in names)), lambda progress: None)
    assert caught.value.what == message
    assert index.store.entries() == []


def test_a_missing_file_is_not_found(index: Index):
    with pytest.raises(NotFoundError):
        create(index.store, wanted("x", files=(Path("/nowhere.gguf"),)), lambda progress: None)


def test_quantizing_makes_a_blob_and_tells_how_far_it_is(base: ModelCard, index: Index):
    told: list[Progress] = []

    def quantizer(source: Path, target: Path, kind: str, count: Callable[[int, int], None]) -> None:
        assert (str(source), kind) == (base.path, "q4_0")
        count(1, 2)
        tensor = F32Tensor("blk.0.w", (4,), bytes(16))
        target.write_bytes(gguf_bytes({"general.architecture": "llama", "general.file_type": 2}, [tensor]))

    create(index.store, wanted("small", base, quantize="q4_0"), told.append, quantizer)
    index.refresh()
    card = index.resolve("small")
    assert (card.quant, Path(card.path).parent) == ("Q4_0", index.store.root / "blobs")
    assert Progress("quantizing F16 model to Q4_0", "0000000000000000000", 2, 1) in told
    with pytest.raises(UsageError, match="only supported for F16 and F32"):
        create(index.store, wanted("smaller", card, quantize="q2_k"), told.append, quantizer)
    assert not list((index.store.root / "blobs").glob(".incoming*"))


def test_a_copy_is_the_model_under_another_name(
    base: ModelCard, make: Callable[..., ModelCard], index: Index
):
    made = make("made", base, system="s")
    copy(index.store, made, ModelName.parse("second"))
    copy(index.store, base, ModelName.parse("third"))
    index.refresh()
    second, third = index.resolve("second"), index.resolve("third")
    assert (second.manifest, second.system) == (made.manifest, "s")
    assert (third.parts, third.parent, third.digest) == (base.parts, "", base.digest)


def test_a_deleted_model_is_gone_and_others_stay(
    base: ModelCard, make: Callable[..., ModelCard], index: Index
):
    made, other = make("made", base, system="s"), make("other", base, system="s")
    delete(index.store, made)
    index.refresh()
    with pytest.raises(NotFoundError):
        index.resolve("made")
    assert index.resolve("other").system == other.system


def test_a_file_of_somebody_elses_is_not_deleted(base: ModelCard, index: Index):
    with pytest.raises(PermissionDeniedError, match="its file stays"):
        delete(index.store, base)
    assert Path(base.path).exists()


def test_a_loose_file_of_the_store_is_deleted(index: Index, write: Write):
    target = index.store.root / "own.gguf"
    target.parent.mkdir(parents=True)
    write("x.gguf").rename(target)
    index.refresh()
    delete(index.store, index.resolve("own"))
    assert not target.exists()


def test_the_embedded_models_name_is_not_for_others(base: ModelCard, index: Index):
    for act in (
        lambda: create(index.store, wanted("selftest", base), print),
        lambda: copy(index.store, base, ModelName.parse("SELFTEST")),
    ):
        with pytest.raises(UsageError, match="llamamgr's own model"):
            act()


def test_a_made_model_has_the_first_right_to_its_name(
    base: ModelCard, make: Callable[..., ModelCard], index: Index
):
    make("base", base, system="mine")
    assert index.resolve("base").system == "mine"
    assert {card.name for card in index.listing().models} == {
        "base:latest",
        "base-models:latest",
        "selftest:latest",
    }


def test_a_model_whose_file_is_gone_is_told_and_not_listed(
    base: ModelCard, make: Callable[..., ModelCard], index: Index
):
    make("derived", base, system="s")
    Path(base.path).unlink()
    listing = index.refresh()
    assert [card.name for card in listing.models] == ["selftest:latest"]
    assert any("No such file" in fault.reason for fault in listing.skipped)


def test_a_template_that_cannot_be_rendered_gives_way_to_the_files_own(
    base: ModelCard, make: Callable[..., ModelCard]
):
    card = make("derived", base, template="{{ nonsense }}")
    assert (card.template, card.capabilities) == ("", base.capabilities)


def test_show_tells_all_and_the_modelfile_makes_it_again(
    base: ModelCard, make: Callable[..., ModelCard], index: Index
):
    card = make(
        "d", base, system="s", template=GO, settings={"stop": ["X", "Y"], "num_ctx": 1024}, licenses=("MIT",)
    )
    assert parameters_text(card) == (
        'num_ctx                        1024\nstop                           "X"\nstop                           "Y"'
    )
    answer = show_answer(card, index.header(card))
    assert (answer["license"], answer["system"], answer["template"]) == ("MIT", "s", GO)
    assert modelfile(card).endswith(
        f"FROM {base.path}\nTEMPLATE {GO}\nSYSTEM s\nPARAMETER num_ctx 1024\nPARAMETER stop X\nPARAMETER stop Y\n"
        "LICENSE MIT\n"
    )
