"""Models of a store as cards: a manifest, its texts, and what its GGUF files say about themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard, SkippedFile
from llamamgr.core.errors import LlamamgrError
from llamamgr.models import manifest as manifests
from llamamgr.models.facts import FileFacts
from llamamgr.models.manifest import Manifest
from llamamgr.models.scan import Found, card_of
from llamamgr.models.store import Entry, Store

_PLACEHOLDER = "{{ .Prompt }}"  # what Ollama stores for a model whose prompt it renders by other means
FactsOf = Callable[[Found], FileFacts]


class Described(msgspec.Struct, frozen=True):
    """A manifest with its texts, read once: nothing in it changes while the manifest does not."""

    manifest: Manifest
    digest: str
    parts: tuple[str, ...]
    projectors: tuple[str, ...]
    adapters: tuple[str, ...]
    template: str = ""
    system: str = ""
    settings: dict[str, object] = {}
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()


class Shelf:
    """Cards of one store's models, remembering what was read."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source
        self._known: dict[tuple[str, int, int], Described] = {}

    def cards(self, facts_of: FactsOf) -> tuple[list[ModelCard], list[SkippedFile]]:
        """The models whose files are there, and what is wrong with the others; ``facts_of`` reads a GGUF file's header."""
        cards, faults, known = [], [], {}
        for entry in self._store.entries():
            key = (entry.path, entry.size, entry.modified)
            try:
                described = self._known.get(key) or describe(self._store, entry)
                known[key] = described
                cards.append(self._card(entry, described, facts_of))
            except _UnusableError as error:
                faults.append(SkippedFile(entry.path, str(error)))
            except (OSError, LlamamgrError) as error:
                reason = error.what if isinstance(error, LlamamgrError) else error.strerror or str(error)
                faults.append(SkippedFile(entry.path, reason))
        self._known = known
        return cards, faults

    def _card(self, entry: Entry, described: Described, facts_of: FactsOf) -> ModelCard:
        parts = [self._facts(path, facts_of) for path in described.parts]
        projectors = [self._facts(path, facts_of) for path in described.projectors]
        projector = projectors[0] if projectors else None
        card = card_of(parts, self._source, entry.name.short, projector)
        return msgspec.structs.replace(
            card,
            digest=_identity(card, projector, described.adapters),
            size=described.manifest.size,
            modified=entry.modified / 1e9,
            adapters=described.adapters,
            template=described.template,
            system=described.system,
            messages=described.messages,
            settings=described.settings,
            licenses=described.licenses,
            parent=next((layer.parent for layer in described.manifest.of("model")), ""),
            manifest=described.digest,
        )

    def _facts(self, path: str, facts_of: FactsOf) -> FileFacts:
        try:
            info = Path(path).stat()
        except OSError as error:
            raise _UnusableError(f"{path}: {error.strerror or error}") from None
        facts = facts_of(Found(path, info.st_size, info.st_mtime_ns, self._source))
        if facts.problem:
            raise _UnusableError(f"{path}: {facts.problem}")
        return facts


def describe(store: Store, entry: Entry) -> Described:
    """What the manifest at ``entry`` says; ``UsageError`` or ``OSError`` when it cannot be read."""
    manifest, data = store.read(entry)
    config = manifests.read_config(store.text(manifest.config))
    if config.remote_host or config.remote_model:
        raise _UnusableError("a model of Ollama's cloud")
    parts = store.parts(manifest)
    if not parts:
        raise _UnusableError("it has no GGUF file")
    texts = {
        kind: [store.text(layer) for layer in manifest.of(kind)]
        for kind in ("template", "prompt", "system", "params", "messages", "license")
    }
    template = _last(texts["template"] or texts["prompt"])
    is_rendered_otherwise = bool(config.renderer or config.parser) and template.strip() == _PLACEHOLDER
    return Described(
        manifest=manifest,
        digest=manifests.digest_of(data),
        parts=tuple(map(str, parts)),
        projectors=tuple(str(store.file_of(layer)) for layer in manifest.of("projector")),
        adapters=tuple(str(store.file_of(layer)) for layer in manifest.of("adapter")),
        template="" if is_rendered_otherwise else template,
        system=_last(texts["system"]),
        settings=manifests.read_settings(texts["params"][-1]) if texts["params"] else {},
        messages=manifests.read_messages(texts["messages"][-1]) if texts["messages"] else (),
        licenses=tuple(text.decode("utf-8", "replace") for text in texts["license"]),
    )


class _UnusableError(Exception):
    """A model that cannot be served, and why."""


def _identity(card: ModelCard, projector: FileFacts | None, adapters: tuple[str, ...]) -> str:
    """One digest for all models that one child can serve: of the files that it loads."""
    if not projector and not adapters:
        return card.digest
    loaded = [card.digest, projector.digest if projector else "", *adapters]
    return hashlib.sha256("\n".join(loaded).encode()).hexdigest()


def _last(texts: list[bytes]) -> str:
    return texts[-1].decode("utf-8", "replace") if texts else ""
