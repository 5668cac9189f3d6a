"""Folders → models: files are found, parts joined, projectors attached, names given, and the rest named with its fault.

The outcome depends on nothing but the files: roots in their order, paths in theirs.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard, SkippedFile
from llamamgr.core.errors import InvalidNameError
from llamamgr.core.gguf_facts import part_base
from llamamgr.core.names import DEFAULT_TAG, ModelName
from llamamgr.core.quants import split_quant
from llamamgr.models.facts import FileFacts

_DEEPEST = 8
_MOST_ENTRIES = 200_000
_LONGEST_NAME = 80
_UNFINISHED = (".incomplete", ".part", ".downloadinprogress", ".aria2", ".crdownload", ".tmp")


class Root(msgspec.Struct, frozen=True):
    """A folder to look through; ``source`` is what its models are said to come from.

    ``repository`` (``hf.co/org/repo``) is the name of all its models before the tag, ``prefixes`` gives it by the beginning of a
    file's name; ``skipped`` are folders directly in it that are not looked into.
    """

    path: str
    source: str
    repository: str = ""
    prefixes: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def repository_of(self, file: str) -> str:
        return next((name for start, name in self.prefixes if file.startswith(start)), self.repository)


class Found(msgspec.Struct, frozen=True):
    """A GGUF file on disk; ``modified`` is ns since the epoch."""

    path: str
    size: int
    modified: int
    source: str
    repository: str = ""


class Listing(msgspec.Struct, frozen=True):
    """The models there are, latest first, and the files that were passed over."""

    models: tuple[ModelCard, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()


def find(roots: Iterable[Root]) -> tuple[list[Found], list[SkippedFile]]:
    """Every GGUF file under ``roots`` once, however many links lead to it, and what stood in the way."""
    walk = _Walk()
    for root in roots:
        walk.through(root)
    return walk.found, walk.skipped


class _Walk:
    """One pass over the roots, which remembers where it was: links may form loops."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.skipped: list[SkippedFile] = []
        self._seen: set[tuple[int, int]] = set()
        self._left = _MOST_ENTRIES

    def through(self, root: Root) -> None:
        self._folder(root.path, root, _DEEPEST)

    def _folder(self, folder: str, root: Root, depth: int) -> None:
        try:
            if not self._is_new(Path(folder).stat()):
                return
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self.skipped.append(SkippedFile(folder, error.strerror or str(error)))
            return
        for entry in entries:
            if self._left <= 0:
                self.skipped.append(
                    SkippedFile(folder, f"more than {_MOST_ENTRIES:,} files: the rest was left out")
                )
                return
            self._left -= 1
            self._entry(entry, root, depth)

    def _entry(self, entry: os.DirEntry[str], root: Root, depth: int) -> None:
        name = entry.name.lower()
        if name.startswith(".") or (depth == _DEEPEST and name in root.skipped):
            return
        if not _is_unicode(entry.path):
            said = entry.path.encode(errors="backslashreplace").decode()
            self.skipped.append(SkippedFile(said, "its name is not UTF-8"))
            return
        try:
            if entry.is_dir():
                if depth > 0:
                    self._folder(entry.path, root, depth - 1)
            elif name.endswith(".gguf"):
                self._file(entry, root)
            elif ".gguf" in name and name.endswith(_UNFINISHED):
                self.skipped.append(SkippedFile(entry.path, "an unfinished download"))
        except OSError as error:
            self.skipped.append(SkippedFile(entry.path, error.strerror or str(error)))

    def _file(self, entry: os.DirEntry[str], root: Root) -> None:
        info = entry.stat()
        if not stat.S_ISREG(info.st_mode):
            self.skipped.append(SkippedFile(entry.path, "not a regular file"))
        elif self._is_new(info):
            repository = root.repository_of(entry.name)
            self.found.append(Found(entry.path, info.st_size, info.st_mtime_ns, root.source, repository))

    def _is_new(self, info: os.stat_result) -> bool:
        identity = (info.st_dev, info.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def assemble(
    files: Sequence[tuple[FileFacts, Found]],
    skipped: Iterable[SkippedFile] = (),
    stored: Iterable[ModelCard] = (),
    first: str = "",
) -> Listing:
    """Models of files, in the order found, and those of stores. A store's model has the first right to its name, but for files
    of the source ``first``; among files, the earlier one.
    """
    faults = [*skipped, *(SkippedFile(facts.path, facts.problem) for facts, _ in files if facts.problem)]
    projectors = _projectors(facts for facts, _ in files)
    names = _Names()
    whole = list(_whole_models(files, faults))
    models = [_named(parts, found, names, projectors) for parts, found in whole if found.source == first]
    for card in stored:
        if names.take(card.name):
            models.append(card)
        else:
            faults.append(SkippedFile(card.path, f"another model is called {card.name} already"))
    models += [_named(parts, found, names, projectors) for parts, found in whole if found.source != first]
    models.sort(key=lambda card: (-card.modified, card.name))
    return Listing(tuple(models), tuple(sorted(set(faults), key=lambda fault: (fault.path, fault.reason))))


def _named(
    parts: list[FileFacts], found: Found, names: _Names, projectors: dict[Path, list[FileFacts]]
) -> ModelCard:
    path = parts[0].path
    projector = _projector_of(parts[0], projectors[Path(path).parent])
    return card_of(parts, found.source, names.give(path, found.repository), projector)


def _whole_models(
    files: Iterable[tuple[FileFacts, Found]], faults: list[SkippedFile]
) -> Iterator[tuple[list[FileFacts], Found]]:
    groups: dict[tuple[str, int], list[tuple[FileFacts, Found]]] = defaultdict(list)
    for facts, found in files:
        if not facts.problem and facts.kind in ("model", "part"):
            path = Path(facts.path)
            key = str(path.with_name(part_base(path.stem))) if facts.parts > 1 else facts.path
            groups[key, facts.parts].append((facts, found))
    for (_, count), members in groups.items():
        parts = sorted((facts for facts, _ in members), key=lambda facts: facts.part)
        missing = sorted(set(range(count)) - {part.part for part in parts})
        if missing:
            lacking = ", ".join(str(number + 1) for number in missing[:5]) + (", …" if missing[5:] else "")
            faults.append(SkippedFile(parts[0].path, f"part {lacking} of {count} is missing or unreadable"))
        else:
            yield parts, members[0][1]


def card_of(parts: Sequence[FileFacts], source: str, name: str, projector: FileFacts | None) -> ModelCard:
    """The card of a model whose parts are all there, in order."""
    first = parts[0]
    digest = (
        first.digest
        if len(parts) == 1
        else hashlib.sha256("".join(p.digest for p in parts).encode()).hexdigest()
    )
    return ModelCard(
        name=name,
        digest=digest,
        parts=tuple(part.path for part in parts),
        size=sum(part.size for part in parts),
        modified=max(part.modified for part in parts) / 1e9,
        source=source,
        arch=first.arch,
        quant=first.quant,
        parameters=sum(part.parameters for part in parts),
        context=first.context,
        embedding=first.embedding,
        layers=first.layers,
        kv_bytes_per_token=first.kv_bytes_per_token,
        capabilities=first.capabilities + (projector.capabilities if projector else ()),
        chat_template=first.chat_template,
        projector=projector.path if projector else "",
    )


def _projectors(files: Iterable[FileFacts]) -> dict[Path, list[FileFacts]]:
    found: dict[Path, list[FileFacts]] = defaultdict(list)
    for file in files:
        if file.kind == "projector" and not file.problem:
            found[Path(file.path).parent].append(file)
    return found


def _projector_of(model: FileFacts, candidates: list[FileFacts]) -> FileFacts | None:
    """The projector beside ``model`` that is made for it: by name, else by width when its name names no model."""
    base = _words(split_quant(part_base(Path(model.path).stem))[0])
    named = [
        file for file in candidates if _words(_projector_base(file)) and _words(_projector_base(file)) in base
    ]
    nameless = [file for file in candidates if not _words(_projector_base(file)) and _fits(file, model)]
    return next(iter(named or nameless), None)


def _projector_base(file: FileFacts) -> str:
    """What is left of ``mmproj-Qwen2-VL-2B-f16`` without projector word and quant: ``Qwen2-VL-2B``."""
    base = split_quant(re.sub(r"(?i)mmproj", "", Path(file.path).stem))[0]
    return re.sub(r"(?i)\A[-._]*(model|f16|f32|bf16|q8_0)?\Z", "", base)


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _fits(projector: FileFacts, model: FileFacts) -> bool:
    # A projector may feed several layers at once, so its width is the model's or a multiple of it.
    return not projector.embedding or not model.embedding or projector.embedding % model.embedding == 0


class _Names:
    """Gives each file a name of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> bool:
        """Whether ``name`` was free; now it is not."""
        key = ModelName.parse(name).key
        is_free = key not in self._taken
        self._taken.add(key)
        return is_free

    def give(self, path: str, repository: str = "") -> str:
        for candidate in _candidates(Path(path), repository):
            try:
                name = ModelName.parse(candidate)
            except InvalidNameError:
                continue  # a repository may have a longer name than a model
            if self.take(name.short):
                return name.short
        raise AssertionError("candidates never end")


def _candidates(path: Path, repository: str) -> Iterator[str]:
    """``base:tag``, then with the folder's name, then with a number; of a repository, its name with tag or base first."""
    base, tag = split_quant(part_base(path.stem))
    if repository:
        yield f"{repository}:{tag or _speakable(base)}"
        yield f"{repository}:{_speakable(path.stem)}"
    tag = tag or DEFAULT_TAG
    yield f"{_speakable(base)}:{tag}"
    longer = f"{_speakable(base)[:50]}-{_speakable(path.parent.name)[:25]}"
    yield f"{longer}:{tag}"
    number = 2
    while True:
        yield f"{longer[:70]}-{number}:{tag}"
        number += 1


def _speakable(text: str) -> str:
    """``text`` as one part of a model's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:_LONGEST_NAME].rstrip("-.") or "model"
