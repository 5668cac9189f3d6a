"""The models there are, by name: of all sources, and the embedded ``selftest``."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard, SkippedFile
from llamamgr.core.config import Config
from llamamgr.core.errors import ConflictError, InvalidNameError, NotFoundError
from llamamgr.core.gguf import SHORT_ARRAY, GgufError, Header
from llamamgr.core.hub import HOST, has_tag, is_hub_name, parse_model_name
from llamamgr.core.names import DEFAULT_TAG, ModelName, path_hint
from llamamgr.host.paths import Paths
from llamamgr.models.cache import FactCache
from llamamgr.models.facts import FileFacts, load_header, read_facts
from llamamgr.models.scan import Found, Listing, assemble, find
from llamamgr.models.sources import EMBEDDED, OWN, sources_of
from llamamgr.models.store import Store
from llamamgr.models.stored import Shelf

_FRESH = 1.0  # seconds for which the folders are taken to be as they were
_MOST_ASKED = 1024
_FRESH_AFTER_MISS = 0.05
_LIKE = 0.6  # of 1: how like a name must be to have been meant
_TELLING = 3  # characters of a name that tell which one is meant
_HERE = ":local"
_LATEST = f":{DEFAULT_TAG}"
_PREFERRED_TAGS = ("q4_k_m", "q8_0")  # llama.cpp's own order when no tag is asked for


class _Snapshot(msgspec.Struct, frozen=True):
    listing: Listing
    by_key: dict[str, ModelCard]
    by_repository: dict[str, list[ModelCard]]
    taken: float
    config: Config  # by which the folders were looked at
    asked: dict[str, ModelCard] = {}  # names as they were asked for, that need not be parsed again


class Index:
    """Safe to ask from several threads. Files are read again only when size or time of change differ."""

    def __init__(self, paths: Paths, config: Config, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._config = config
        self._clock = clock
        self._cache = FactCache(paths.cache / "models.sqlite")
        self._known: dict[str, FileFacts] | None = None
        self._snapshot: _Snapshot | None = None
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """The own store: where models are created and pulled."""
        return Store(self._paths.models)

    def refresh(self) -> Listing:
        """Look at every folder now."""
        with self._lock:
            return self._look().listing

    def reconfigure(self, config: Config) -> None:
        """Take a new configuration in; the next question looks at its folders. Does not wait for a look that is under way."""
        self._config = config

    def listing(self) -> Listing:
        """The models, at most a second old."""
        return self._current(_FRESH).listing

    def resolve(self, name: str) -> ModelCard:
        """The model called ``name``, in any spelling Ollama takes; without a tag the best quantisation there is.

        ``InvalidNameError`` for what cannot be a name, ``NotFoundError`` with near names for what is not there.
        """
        name = name.strip()
        if name.lower().endswith((":local:cloud", ":cloud:local")):
            raise InvalidNameError(f'use either :local or :cloud, not both: "{name}"', "")
        if name.lower().endswith(_HERE) and self.find(name) is None:
            name = name[: -len(_HERE)]  # Ollama's other word for it is ":cloud"; one may have it for its tag
        for age in (_FRESH, _FRESH_AFTER_MISS):
            card = self._meant(self._current(age), name)
            if card:
                return card
        name = self._config.aliases.get(name.lower(), name)
        raise NotFoundError(
            f"model '{name}' not found", path_hint(name) or self._hint(parse_model_name(name))
        )

    def require_itself(self, name: str, card: ModelCard) -> ModelCard:
        """``card``, which ``name`` was resolved to, if that is its very name, else ``NotFoundError``: no deletion is guessed.

        One of Hugging Face that was pulled by its repository alone is that repository's only one.
        """
        wanted, snapshot = parse_model_name(name.strip()), self._current(_FRESH)
        is_itself = wanted.key == parse_model_name(card.name).key
        alike = snapshot.by_repository.get(wanted.repository.lower(), ())
        if is_itself or (wanted.host == HOST and not has_tag(name) and len(alike) == 1):
            return card
        raise NotFoundError(f"model '{name}' not found", f"there is {card.name}")

    def find(self, name: str) -> ModelCard | None:
        """As ``resolve``, by a look at most a second old: one that is not there, or no name, is None and costs no other look."""
        try:
            return self._meant(self._current(_FRESH), name)
        except InvalidNameError:
            return None

    def named(self, name: str) -> ModelCard | None:
        """The model that bears this very name, aliases aside; None when there is none, or it cannot be a name."""
        try:
            return _lookup(self._current(_FRESH), parse_model_name(name), has_tag(name))
        except InvalidNameError:
            return None

    def beyond_pulling(self, name: str) -> ModelCard | None:
        """The model here for which a pull of ``name`` has nothing to fetch; None when a registry is to be asked.

        It is one that ``name`` is an alias of, or one of this very name that is no model of the own store: a file, or another
        program's. ``InvalidNameError`` for what cannot be a name.
        """
        aliases = self._config.aliases
        card = None if is_hub_name(name) else self._current(_FRESH).by_key.get(_key(name))
        if name.lower() in aliases or (card is None and name.lower().removesuffix(_LATEST) in aliases):
            return self.find(name)
        parse_model_name(name)
        return None if card and card.source == OWN and card.manifest else card

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """A model's name → what else the configuration lets it be called; aliases of models that are not there are left out."""
        found = dict[str, tuple[str, ...]]()
        for name, table in self._config.models.items():
            card = self.named(name) if table.aliases else None
            if card:
                spelled = {alias.lower(): alias for alias in table.aliases}
                found[card.name] = (*found.get(card.name, ()), *spelled.values())
        return found

    def recall(self, name: str) -> ModelCard | None:
        """As ``resolve``, from memory alone: None when the disk must be looked at, or the name is none as it stands."""
        snapshot = self._remembered(_FRESH)
        if snapshot is None:
            return None
        known = snapshot.asked.get(name)
        if known is None:
            try:
                known = self._meant(snapshot, name)
            except InvalidNameError:
                return None
            if known is not None and len(snapshot.asked) < _MOST_ASKED:
                snapshot.asked[name] = known
        return known

    def _meant(self, snapshot: _Snapshot, name: str) -> ModelCard | None:
        """The model that ``name`` is an alias of, or bears; with ``:latest`` an alias is meant where no model has that name."""
        aliases = self._config.aliases
        full = aliases.get(name.lower(), name)
        untagged = aliases.get(name.lower().removesuffix(_LATEST), "")
        if untagged and full == name and snapshot.by_key.get(_key(name)) is None:
            full = untagged
        return _lookup(snapshot, parse_model_name(full), has_tag(full))

    def header(self, card: ModelCard, verbose: bool = False) -> Header:
        """The header of the first part with the tensors of all; with ``verbose`` long arrays too.

        ``ConflictError`` when the files are not what they were when they were listed.
        """
        first, *others = [_read_again(part, verbose) for part in card.parts]
        tensors = first.tensors + tuple(tensor for header in others for tensor in header.tensors)
        return msgspec.structs.replace(first, tensors=tensors)

    def projector_header(self, card: ModelCard, verbose: bool = False) -> Header | None:
        """The header of its projector, None when it has none; otherwise as ``header``."""
        return _read_again(card.projector, verbose) if card.projector else None

    def _current(self, age: float) -> _Snapshot:
        snapshot = self._remembered(age)
        if snapshot is None:
            with self._lock:
                snapshot = self._remembered(age) or self._look()  # another thread may have looked meanwhile
        return snapshot

    def _remembered(self, age: float) -> _Snapshot | None:
        snapshot = self._snapshot
        if snapshot is None or snapshot.config is not self._config:
            return None
        return snapshot if self._clock() - snapshot.taken < age else None

    def _look(self) -> _Snapshot:
        """Caller holds the lock."""
        config = self._config
        sources = sources_of(self._paths, config)
        found, skipped = find(sources.roots)
        reading = _Reading(self._cache.load() if self._known is None else self._known)
        files = [(reading.facts(file), file) for file in found]
        stored: list[ModelCard] = []
        faults = [*sources.faults, *skipped]
        for store, source in sources.stores:
            shelf = self._shelves.setdefault(str(store.root), Shelf(store, source))
            cards, unusable = shelf.cards(reading.facts)
            stored += cards
            faults += unusable
        folders = [root.path for root in sources.roots] + [str(store.root) for store, _ in sources.stores]
        gone = _gone(reading.known, folders, reading.used)
        if reading.changed or gone:
            self._cache.save(reading.changed, gone)
        self._known = reading.used
        listing = assemble(files, faults, map(_told, stored), EMBEDDED)
        self._snapshot = snapshot = _snapshot(listing, self._clock(), config)
        return snapshot

    def _hint(self, wanted: ModelName) -> str:
        unusable = self._unusable(wanted)
        if unusable:
            return f"{unusable.path} cannot be used: {unusable.reason}"
        names = _near(wanted, [ModelName.parse(card.name) for card in self._current(_FRESH).listing.models])
        said = f"did you mean {' or '.join(names)}? " if names else ""
        return f"{said}`llamamgr list` shows what there is"

    def _unusable(self, wanted: ModelName) -> SkippedFile | None:
        """A file that bears the name that was asked for and was passed over."""
        asked = {wanted.model.lower(), f"{wanted.model}-{wanted.tag}".lower()}
        skipped = self._current(_FRESH).listing.skipped
        return next((file for file in skipped if Path(file.path).stem.lower() in asked), None)


class _Reading:
    """Facts of files during one look: remembered ones, and those of files that are new or changed."""

    def __init__(self, known: dict[str, FileFacts]) -> None:
        self.known = known
        self.used: dict[str, FileFacts] = {}
        self.changed: list[FileFacts] = []

    def facts(self, file: Found) -> FileFacts:
        facts = self.used.get(file.path) or self.known.get(file.path)
        if facts is None or (facts.size, facts.modified) != (file.size, file.modified):
            facts = read_facts(file.path, file.size, file.modified)
            self.changed.append(facts)
        self.used[file.path] = facts
        return facts


@functools.lru_cache(maxsize=1024)
def _template_words(template: str) -> tuple[str, ...] | None:
    """What a Go template makes possible, in Ollama's words; None when it cannot be rendered."""
    from llamamgr.wire import gotemplate  # 10 ms that a list of plain files does not need

    try:
        parsed = gotemplate.compiled(template)
    except gotemplate.TemplateError:
        return None
    abilities = {"tools": parsed.can_call_tools, "thinking": parsed.can_think, "insert": parsed.can_insert}
    return tuple(word for word, present in abilities.items() if present)


def _told(card: ModelCard) -> ModelCard:
    """A store's card with what its template makes possible. One that cannot be rendered is left to the file's own."""
    if not card.template or "completion" not in card.capabilities:
        return card
    words = _template_words(card.template)
    if words is None:
        return msgspec.structs.replace(card, template="") if card.chat_template else card
    media = [word for word in card.capabilities if word in ("vision", "audio")]
    before = [word for word in words if word != "insert"]
    after = ["insert"] if "insert" in (*words, *card.capabilities) else []
    return msgspec.structs.replace(card, capabilities=(*before, "completion", *after, *media))


def _snapshot(listing: Listing, taken: float, config: Config) -> _Snapshot:
    by_key: dict[str, ModelCard] = {}
    by_repository: dict[str, list[ModelCard]] = {}
    for card in listing.models:
        name = ModelName.parse(card.name)
        by_key[name.key] = card
        by_repository.setdefault(name.repository.lower(), []).append(card)
    return _Snapshot(listing, by_key, by_repository, taken, config)


def _lookup(snapshot: _Snapshot, wanted: ModelName, has_tag: bool) -> ModelCard | None:
    exact = snapshot.by_key.get(wanted.key)
    if exact or has_tag:
        return exact
    return min(snapshot.by_repository.get(wanted.repository.lower(), ()), key=_preference, default=None)


def _key(name: str) -> str:
    """The key of a name; "" for what can be none, such as many an alias."""
    try:
        return parse_model_name(name).key
    except InvalidNameError:
        return ""


def _preference(card: ModelCard) -> tuple[int, str]:
    tag = ModelName.parse(card.name).tag.lower()
    place = _PREFERRED_TAGS.index(tag) if tag in _PREFERRED_TAGS else len(_PREFERRED_TAGS)
    return place, card.name.lower()


def _near(wanted: ModelName, names: Iterable[ModelName]) -> list[str]:
    """Up to three names that may have been meant, the likest first; tags are compared only where the rest is near."""
    import difflib

    def likeness(name: ModelName) -> tuple[float, float]:
        mine, other = wanted.repository.lower(), name.repository.lower()
        ratio = difflib.SequenceMatcher(None, mine, other).ratio()
        begun = len(mine) >= _TELLING and mine in other
        tags = difflib.SequenceMatcher(None, wanted.tag.lower(), name.tag.lower()).ratio()
        return max(ratio, _LIKE if begun else 0.0), tags

    found = sorted(((likeness(name), name.short) for name in names), reverse=True)
    return [short for (ratio, _), short in found if ratio >= _LIKE][:3]


def _gone(known: Iterable[str], folders: Iterable[str], found: Iterable[str]) -> list[str]:
    """Remembered paths in ``folders`` that are not there now; those of other configurations are left alone."""
    starts = tuple(folder.rstrip(os.sep) + os.sep for folder in folders)
    present = set(found)
    return [path for path in known if path not in present and path.startswith(starts)]


def _read_again(path: str, verbose: bool) -> Header:
    try:
        return load_header(Path(path), arrays=None if verbose else SHORT_ARRAY)[0]
    except (OSError, GgufError) as error:
        raise ConflictError(f"{path} cannot be read any more: {error}", "run `llamamgr list -v`") from None
