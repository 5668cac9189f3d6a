"""The models there are, by name: files of the own store, of the configured folders, and the embedded ``selftest``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard, SkippedFile
from llamamgr.core.config import Config
from llamamgr.core.errors import ConflictError, NotFoundError
from llamamgr.core.gguf import SHORT_ARRAY, GgufError, Header
from llamamgr.core.names import ModelName
from llamamgr.host.paths import Paths
from llamamgr.models import selftest
from llamamgr.models.cache import FactCache
from llamamgr.models.facts import FileFacts, load_header, read_facts
from llamamgr.models.scan import Listing, Root, assemble, find

_FRESH = 1.0  # seconds for which the folders are taken to be as they were
_FRESH_AFTER_MISS = 0.05
_PREFERRED_TAGS = ("q4_k_m", "q8_0")  # llama.cpp's own order when no tag is asked for


class _Snapshot(msgspec.Struct, frozen=True):
    listing: Listing
    by_key: dict[str, ModelCard]
    by_repository: dict[str, list[ModelCard]]
    taken: float


class Index:
    """Safe to ask from several threads. Files are read again only when size or time of change differ."""

    def __init__(self, paths: Paths, config: Config, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._config = config
        self._clock = clock
        self._cache = FactCache(paths.cache / "models.sqlite")
        self._known: dict[str, FileFacts] | None = None
        self._snapshot: _Snapshot | None = None
        self._lock = threading.Lock()

    def refresh(self) -> Listing:
        """Look at every folder now."""
        with self._lock:
            return self._look().listing

    def listing(self) -> Listing:
        """The models, at most a second old."""
        return self._current(_FRESH).listing

    def resolve(self, name: str) -> ModelCard:
        """The model called ``name``, in any spelling Ollama takes; without a tag the best quantisation there is.

        ``InvalidNameError`` for what cannot be a name, ``NotFoundError`` with near names for what is not there.
        """
        wanted = ModelName.parse(name)
        has_tag = ":" in name.rsplit("/", 1)[-1]
        for age in (_FRESH, _FRESH_AFTER_MISS):
            card = _lookup(self._current(age), wanted, has_tag)
            if card:
                return card
        raise NotFoundError(f"model '{name}' not found", self._hint(wanted))

    def recall(self, name: str) -> ModelCard | None:
        """As ``resolve``, from memory alone: None when the disk must be looked at. ``InvalidNameError`` as there."""
        snapshot = self._snapshot
        if snapshot is None or self._clock() - snapshot.taken >= _FRESH:
            return None
        return _lookup(snapshot, ModelName.parse(name), ":" in name.rsplit("/", 1)[-1])

    def header(self, card: ModelCard, verbose: bool = False) -> Header:
        """The header of the first part with the tensors of all; with ``verbose`` long arrays too.

        ``ConflictError`` when the files are not what they were when they were listed.
        """
        try:
            first, *others = [
                load_header(Path(part), arrays=None if verbose else SHORT_ARRAY)[0] for part in card.parts
            ]
        except (OSError, GgufError) as error:
            raise ConflictError(
                f"{card.path} cannot be read any more: {error}", "run `llamamgr list -v`"
            ) from None
        tensors = first.tensors + tuple(tensor for header in others for tensor in header.tensors)
        return msgspec.structs.replace(first, tensors=tensors)

    def _current(self, age: float) -> _Snapshot:
        snapshot = self._snapshot
        if snapshot and self._clock() - snapshot.taken < age:
            return snapshot
        with self._lock:
            snapshot = self._snapshot  # another thread may have looked meanwhile
            return snapshot if snapshot and self._clock() - snapshot.taken < age else self._look()

    def _look(self) -> _Snapshot:
        """Caller holds the lock."""
        roots, faults = self._roots()
        found, skipped = find(roots)
        known = self._cache.load() if self._known is None else self._known
        files, changed = [], []
        for file in found:
            facts = known.get(file.path)
            if facts is None or (facts.size, facts.modified) != (file.size, file.modified):
                facts = read_facts(file.path, file.size, file.modified)
                changed.append(facts)
            files.append((facts, file.source))
        gone = _gone(known, roots, {file.path for file in found})
        if changed or gone:
            self._cache.save(changed, gone)
        self._known = {facts.path: facts for facts, _ in files}
        self._snapshot = _snapshot(assemble(files, [*faults, *skipped]), self._clock())
        return self._snapshot

    def _roots(self) -> tuple[list[Root], list[SkippedFile]]:
        roots, faults = [], []
        try:
            roots.append(Root(str(selftest.ensure(self._paths.cache / selftest.NAME).parent), "embedded"))
        except OSError as error:
            faults.append(SkippedFile(str(self._paths.cache / selftest.NAME), error.strerror or str(error)))
        if self._paths.models.is_dir():
            roots.append(Root(str(self._paths.models), "store"))
        folders = [str(Path(folder).expanduser().absolute()) for folder in self._config.models_dirs if folder]
        return roots + [Root(folder, folder) for folder in folders], faults

    def _hint(self, wanted: ModelName) -> str:
        import difflib

        models = self._current(_FRESH).listing.models
        spellings = {spelling: card.name for card in models for spelling in _spellings(card)}
        near = difflib.get_close_matches(wanted.short.lower(), spellings, n=3, cutoff=0.5)
        near += difflib.get_close_matches(wanted.repository.lower(), spellings, n=3)
        names = list(dict.fromkeys(spellings[spelling] for spelling in near))
        said = f"did you mean {' or '.join(names[:3])}? " if names else ""
        return f"{said}`llamamgr list` shows what there is"


def _snapshot(listing: Listing, taken: float) -> _Snapshot:
    by_key: dict[str, ModelCard] = {}
    by_repository: dict[str, list[ModelCard]] = {}
    for card in listing.models:
        name = ModelName.parse(card.name)
        by_key[name.key] = card
        by_repository.setdefault(name.repository.lower(), []).append(card)
    return _Snapshot(listing, by_key, by_repository, taken)


def _lookup(snapshot: _Snapshot, wanted: ModelName, has_tag: bool) -> ModelCard | None:
    exact = snapshot.by_key.get(wanted.key)
    if exact or has_tag:
        return exact
    return min(snapshot.by_repository.get(wanted.repository.lower(), ()), key=_preference, default=None)


def _preference(card: ModelCard) -> tuple[int, str]:
    tag = ModelName.parse(card.name).tag.lower()
    place = _PREFERRED_TAGS.index(tag) if tag in _PREFERRED_TAGS else len(_PREFERRED_TAGS)
    return place, card.name.lower()


def _spellings(card: ModelCard) -> tuple[str, str]:
    name = ModelName.parse(card.name)
    return name.short.lower(), name.repository.lower()


def _gone(known: Iterable[str], roots: Iterable[Root], found: set[str]) -> list[str]:
    """Remembered paths under ``roots`` that are not there now; those of other configurations are left alone."""
    folders = tuple(root.path.rstrip(os.sep) + os.sep for root in roots)
    return [path for path in known if path not in found and path.startswith(folders)]
