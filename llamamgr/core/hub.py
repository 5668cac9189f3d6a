"""Models of Hugging Face by name: ``hf:org/repo``, with a quant or a file, and with a revision.

::

    hf:org/repo                          the best quant there is
    hf:org/repo:Q4_K_M                   that quant
    hf:org/repo:sub/file-Q4_K_M.gguf     that file
    hf:org/repo:Q4_K_M@v1.0              of that branch, tag or commit

In the index such a model is called ``hf.co/org/repo:TAG``, as Ollama's users call it. Which files belong to a model follows
llama.cpp (source: common/download.cpp): a quant may be in the file's path, parts go together, a projector is the nearest one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from llamamgr.core.errors import InvalidNameError, NotFoundError
from llamamgr.core.gguf_facts import part_base
from llamamgr.core.names import DEFAULT_TAG, ModelName
from llamamgr.core.quants import split_quant

HOST = "hf.co"
PREFIX = "hf:"

_SPEC = re.compile(
    r"hf:(?P<org>[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})/(?P<repo>[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})"
    r"(?::(?P<what>[^@:\s]{1,512}))?(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}))?\Z"
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})\Z")
_NOT_MODELS = re.compile(r"(?i)mmproj|imatrix|(?:\A|/)(?:mtp|eagle3|dflash|dspark)-")
_PREFERRED = ("Q4_K_M", "Q8_0")  # llama.cpp's own order when nothing is asked for


class HubSpec(msgspec.Struct, frozen=True):
    """What is wanted of a repository; ``quant`` and ``file`` are "" when not asked for, ``revision`` "" is ``main``."""

    org: str
    repo: str
    quant: str = ""
    file: str = ""
    revision: str = ""

    @property
    def id(self) -> str:
        return f"{self.org}/{self.repo}"

    def name(self, quant: str = "") -> ModelName:
        """The model's name in the index; ``quant`` is the one that was found where none was asked for."""
        base, tag = split_quant(_stem(self.file))
        tag = self.quant or tag or (base if self.file else "") or quant or DEFAULT_TAG
        if self.revision:
            tag = f"{tag}-{self.revision.replace('/', '-')[:40]}"
        return ModelName.parse(f"{HOST}/{self.org}/{self.repo}:{_speakable(tag)}")


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository: its path there, bytes, and SHA-256 ("" when the hub does not tell)."""

    path: str
    size: int
    sha256: str = ""


class HubChoice(msgspec.Struct, frozen=True):
    """The parts of a model in their order, its quant, and the projector beside it."""

    parts: tuple[HubFile, ...]
    quant: str
    projector: HubFile | None = None


def is_hub_name(text: str) -> bool:
    return text.startswith(PREFIX)


def parse_hub_name(text: str) -> HubSpec:
    """``InvalidNameError`` for what is no ``hf:`` name."""
    found = _SPEC.match(text)
    what = (found["what"] or "") if found else ""
    if not found or ".." in text or what.startswith("/"):
        raise InvalidNameError(
            "invalid model name", f"{text!r} is not hf:org/repo[:QUANT or :file.gguf][@revision]"
        )
    is_file = what.lower().endswith(".gguf")
    if not is_file and "/" in what:
        raise InvalidNameError(
            "invalid model name", f"{what!r} is neither a quant nor a file that ends in .gguf"
        )
    return HubSpec(
        found["org"], found["repo"], "" if is_file else what, what if is_file else "", found["revision"] or ""
    )


def parse_model_name(text: str) -> ModelName:
    """Any name that a model may be asked for by: Ollama's forms and ``hf:``."""
    return parse_hub_name(text).name() if is_hub_name(text) else ModelName.parse(text)


def has_tag(text: str) -> bool:
    """True when a name says which tag it means."""
    if is_hub_name(text):
        spec = parse_hub_name(text)
        return bool(spec.quant or spec.file or spec.revision)
    return ":" in text.rsplit("/", 1)[-1]


def choose(files: Sequence[HubFile], spec: HubSpec) -> HubChoice:
    """The files of the model that ``spec`` asks for; ``NotFoundError`` names what there is instead."""
    ggufs = sorted(
        (file for file in files if file.path.lower().endswith(".gguf")), key=lambda file: file.path
    )
    models = [file for file in ggufs if not _NOT_MODELS.search(file.path)]
    first = _first(models, spec)
    if first is None:
        known = ", ".join(dict.fromkeys(_quant(file.path) or file.path for file in models)) or "no GGUF file"
        wanted = spec.file or spec.quant or "a model"
        raise NotFoundError(f"{spec.id} has no {wanted}", f"there is: {known}"[:400])
    parts = _parts(first, models)
    return HubChoice(parts, _quant(first.path), _projector(first, ggufs))


def _first(models: Sequence[HubFile], spec: HubSpec) -> HubFile | None:
    if spec.file:
        return next((file for file in models if file.path == spec.file), None)
    for tag in (spec.quant,) if spec.quant else _PREFERRED:
        mark = re.compile(rf"(?i)(?:\A|[-._/]){re.escape(tag)}(?:[-./]|\Z)")
        found = next((file for file in models if mark.search(file.path)), None)
        if found:
            return found
    return None if spec.quant else next(iter(models), None)


def _parts(first: HubFile, models: Sequence[HubFile]) -> tuple[HubFile, ...]:
    """All parts of a split model, of which ``first`` is any; ``NotFoundError`` when the repository lacks one."""
    named = _PART.search(_stem(first.path))
    if not named:
        return (first,)
    base = first.path.removesuffix(".gguf")[: -len(named[0])]
    by_path = {file.path: file for file in models}
    count = int(named[2])
    paths = [f"{base}-{number:05d}-of-{count:05d}.gguf" for number in range(1, min(count, 10_000) + 1)]
    missing = [path for path in paths if path not in by_path]
    if missing:
        raise NotFoundError(
            f"{missing[0]} is missing in the repository", "it is incomplete there; try another quant"
        )
    return tuple(by_path[path] for path in paths)


def _projector(model: HubFile, ggufs: Sequence[HubFile]) -> HubFile | None:
    """The projector in the deepest folder shared with ``model``, and among those the one of 16 bits, then 8."""
    candidates = [file for file in ggufs if "mmproj" in file.path.lower()]

    def rank(file: HubFile) -> tuple[int, int, str]:
        folder = file.path.rpartition("/")[0]
        shared = len(folder) if f"{model.path}/".startswith(f"{folder}/" if folder else "") else -1
        order = ("F16", "BF16", "Q8_0", "F32")
        quant = _quant(file.path)
        return -shared, order.index(quant) if quant in order else len(order), file.path

    return min(candidates, key=rank, default=None)


def _quant(path: str) -> str:
    tag = split_quant(part_base(_stem(path)))[1]
    return tag or split_quant(f"x-{path.rpartition('/')[0].rpartition('/')[2]}")[1]


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[:-5] if name.lower().endswith(".gguf") else name


def _speakable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:80] or DEFAULT_TAG
