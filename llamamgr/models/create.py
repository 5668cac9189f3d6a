"""Models made of other models and files, as a Modelfile or ``/api/create`` says; copied; deleted.

Weights are never copied: a GGUF file outside of the store stays where it is, and the manifest tells where. Statuses and their
order are Ollama's (source: server/create.go).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError, PermissionDeniedError, UsageError
from llamamgr.core.names import ModelName
from llamamgr.host.files import discard
from llamamgr.models import manifest as manifests
from llamamgr.models import selftest
from llamamgr.models.details import human_count
from llamamgr.models.facts import FileFacts, read_facts
from llamamgr.models.manifest import CONFIG, KIND, Layer, Manifest
from llamamgr.models.progress import SUCCESS, Progress, Tell
from llamamgr.models.store import Entry, Store, take_in

# source, target, type (``Q4_K_M``), and what to tell the done and all tensors
Quantizer = Callable[[Path, Path, str, Callable[[int, int], None]], None]

_UNQUANTIZED = ("F32", "F16", "BF16")
_KINDS = {"model": "model", "part": "model", "projector": "projector", "adapter": "adapter"}


class Wanted(msgspec.Struct, frozen=True):
    """What to make: of ``base``, or of GGUF ``files``. None leaves what the base has.

    ``parent`` is told as the model's origin; ``quantize`` is a type for the weights, "" = as they are.
    """

    name: ModelName
    base: ModelCard | None = None
    parent: str = ""
    files: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    template: str | None = None
    system: str | None = None
    settings: dict[str, Any] = {}
    messages: tuple[tuple[str, str], ...] | None = None
    licenses: tuple[str, ...] = ()
    quantize: str = ""


class _Made(msgspec.Struct, frozen=True):
    """A layer, the facts of its file, and whether it was there before."""

    layer: Layer
    known: bool
    facts: FileFacts | None = None


def create(store: Store, wanted: Wanted, tell: Tell, quantizer: Quantizer | None = None) -> Entry:
    """Make the model. Blocking. Until its manifest is written nothing is seen of it.

    ``UsageError`` in Ollama's words for files that are no GGUF or cannot be quantized, ``NotFoundError`` for missing blobs.
    """
    _refuse_reserved(wanted.name)
    made = _weights(store, wanted, tell)
    if not any(one.layer.kind == "model" for one in made):
        raise UsageError("no model among the files", "give the GGUF file of a language model")
    if wanted.quantize:
        made = [_quantized(store, one, wanted.quantize, tell, quantizer) for one in made]
    with store.changing():
        made += _texts(store, wanted)
        manifest = Manifest(_config(store, made), tuple(one.layer for one in made))
        for one in made:
            tell(Progress(f"{'using existing' if one.known else 'creating new'} layer {one.layer.digest}"))
        tell(Progress("writing manifest"))
        entry = store.publish(wanted.name, manifest)
    tell(SUCCESS)
    return entry


def copy(store: Store, card: ModelCard, destination: ModelName) -> None:
    """A second name for a model, wherever it is kept; its own is no second one."""
    if ModelName.parse(card.name).key == destination.key:
        return
    _refuse_reserved(destination)
    entry = _entry_of(store, card)
    if entry is None:
        create(store, Wanted(destination, card), lambda progress: None)
        return
    with store.changing():
        store.publish(destination, store.read(entry)[0])


def delete(store: Store, card: ModelCard) -> None:
    """Remove a model of the own store. ``PermissionDeniedError`` for one that others keep: its files are not ours."""
    entry = _entry_of(store, card)
    if entry is not None:
        with store.changing():
            store.remove(entry)
    elif card.source == "store":
        for part in card.parts:
            discard(Path(part))
    else:
        raise PermissionDeniedError(
            f"{card.name} is not in llamamgr's store: its file stays",
            f"remove it yourself if you no longer need it: {card.path}",
        )


def _entry_of(store: Store, card: ModelCard) -> Entry | None:
    return store.find(ModelName.parse(card.name)) if card.source == "store" and card.manifest else None


def _refuse_reserved(name: ModelName) -> None:
    if name.key == ModelName.parse(selftest.NAME).key:
        raise UsageError(f"{selftest.NAME} is llamamgr's own model", "choose another name")


# -- weights


def _weights(store: Store, wanted: Wanted, tell: Tell) -> list[_Made]:
    if wanted.base is not None:
        base = wanted.base
        parent = wanted.parent
        made = [_placed(store, Path(part), "model", parent) for part in base.parts]
        made += [_placed(store, Path(base.projector), "projector")] if base.projector else []
        made += [_placed(store, Path(adapter), "adapter") for adapter in base.adapters]
    else:
        tell(Progress("parsing GGUF"))
        made = [_placed(store, path) for path in wanted.files]
        made.sort(key=lambda one: (one.facts.part if one.facts else 0, one.layer.kind != "model"))
        _check_parts(made)
    if wanted.adapters:
        tell(Progress("parsing GGUF"))
        made = [one for one in made if one.layer.kind != "adapter"]
        made += [_placed(store, path, "adapter") for path in wanted.adapters]
    return made


def _placed(store: Store, path: Path, expected: str = "", parent: str = "") -> _Made:
    """The layer of a GGUF file: a blob by its digest, any other file by its place."""
    facts = _facts(path)
    kind = _KINDS.get(facts.kind, "")
    if not kind or (expected and kind != expected):
        raise UsageError(
            f"{path.name} is no {expected or 'model'}: it holds a {facts.kind}", "give another file"
        )
    real = path.resolve() if path.is_symlink() else path
    blobs = store.root / "blobs"
    if real.parent == blobs or real.parent == blobs.resolve():
        digest, place = real.name.removeprefix("sha256-"), ""
    else:
        digest, place = facts.digest, str(path)
    return _Made(Layer(f"{KIND}{kind}", f"sha256:{digest}", facts.size, parent, place), True, facts)


def _facts(path: Path) -> FileFacts:
    try:
        info = path.stat()
    except OSError:
        raise NotFoundError(f"there is no file {path}", "send it, or check its path") from None
    facts = read_facts(str(path), info.st_size, info.st_mtime_ns)
    if facts.problem:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        said = facts.problem if is_gguf else "supplied file was not in GGUF format"
        raise UsageError(said, "give a GGUF file; `llamamgr convert` makes one of safetensors")
    return facts


def _check_parts(made: Iterable[_Made]) -> None:
    facts = [one.facts for one in made if one.facts and one.layer.kind == "model"]
    if len(facts) > 1 and [(one.part, one.parts) for one in facts] != [
        (n, len(facts)) for n in range(len(facts))
    ]:
        raise UsageError("several models among the files", "give one model: all its parts, and its projector")
    if len(facts) == 1 and facts[0].parts > 1:
        raise UsageError(
            f"part {facts[0].part + 1} of {facts[0].parts} alone is no model", "give all its parts"
        )


def _quantized(store: Store, one: _Made, wanted: str, tell: Tell, quantizer: Quantizer | None) -> _Made:
    """The model in fewer bits, as a new blob; other layers stay as they are."""
    if one.layer.kind != "model" or one.facts is None:
        return one
    if one.facts.quant not in _UNQUANTIZED:
        raise UsageError(
            "quantization is only supported for F16 and F32 models", f"this one is {one.facts.quant}"
        )
    if one.facts.parts > 1:
        raise UsageError("a model of several parts cannot be quantized here", "use `llamamgr quantize`")
    if quantizer is None:
        raise UsageError("there is nothing here that quantizes", "use `llamamgr quantize`")
    status = f"quantizing {one.facts.quant} model to {wanted.upper()}"
    tell(Progress(status))
    scratch = store.root / "blobs" / f".incoming-{secrets.token_hex(8)}.gguf"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        quantizer(
            Path(one.facts.path),
            scratch,
            wanted,
            lambda done, total: tell(Progress(status, "0000000000000000000", total, done)),
        )
        tell(Progress("verifying conversion"))
        hex_digest, size = take_in(store, scratch)
    finally:
        discard(scratch)
    facts = _facts(store.blob(hex_digest))
    return _Made(Layer(f"{KIND}model", f"sha256:{hex_digest}", size, one.layer.parent), False, facts)


# -- texts


def _texts(store: Store, wanted: Wanted) -> list[_Made]:
    base = wanted.base
    template = wanted.template if wanted.template is not None else base.template if base else ""
    system = wanted.system if wanted.system is not None else base.system if base else ""
    messages = wanted.messages if wanted.messages is not None else base.messages if base else ()
    settings = {**(base.settings if base else {}), **wanted.settings}
    licenses = dict.fromkeys((*(base.licenses if base else ()), *wanted.licenses))
    texts = [("template", template.encode()), ("system", system.encode())]
    texts += [("license", text.encode()) for text in licenses]
    texts += [("params", msgspec.json.encode(settings, order="sorted") if settings else b"")]
    texts += [("messages", manifests.encode_messages(messages) if messages else b"")]
    for kind, data in texts:
        if len(data) > manifests.LONGEST_TEXT:
            raise UsageError(f"a {kind} of {len(data):,} bytes", f"at most {manifests.LONGEST_TEXT:,}")
    return [_Made(*store.add(data, kind)) for kind, data in texts if data]


def _config(store: Store, made: list[_Made]) -> Layer:
    facts = [one.facts for one in made if one.facts and one.layer.kind == "model"]
    first = facts[0]
    has_projector = any(one.layer.kind == "projector" for one in made)
    config = manifests.Config(
        model_family=first.arch,
        model_families=(first.arch, "clip") if has_projector else (first.arch,),
        model_type=human_count(sum(one.parameters for one in facts)),
        file_type=first.quant,
    )
    # what is left at its default is told all the same: other readers of the store expect it
    return store.add(msgspec.json.encode({"model_format": "gguf", **msgspec.to_builtins(config)}), CONFIG)[0]
