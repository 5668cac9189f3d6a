"""What ``config.toml`` names and is not there: models, instances, files, folders, options of llama-server.

None of it is refused, since a model may be pulled and an instance installed later; untold it would show at the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from llamamgr.core.advice import Advice
from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config, ModelConfig
from llamamgr.core.errors import LlamamgrError
from llamamgr.host.paths import Paths
from llamamgr.host.settings import place_of
from llamamgr.instances.store import Store
from llamamgr.models.index import Index
from llamamgr.models.sources import folder_of
from llamamgr.supervise.wishes import flag_faults

_NOT_THERE = "write the path of a file that is there, in full"


def advice(config: Config, paths: Paths, index: Index) -> tuple[Advice, ...]:
    """All of it, in the order of the file's keys. Reads the disk: the folders of models and the cards of the builds."""
    return tuple(_Adviser(config, Store(paths), index).all())


class _Adviser:
    def __init__(self, config: Config, store: Store, index: Index) -> None:
        self._config = config
        self._store = store
        self._index = index
        self._names = {card.name.lower() for card in index.listing().models}

    def all(self) -> Iterator[Advice]:
        config = self._config
        yield from self._general_instance()
        for folder in filter(None, config.models_dirs):
            if not _is_there(folder_of(folder), Path.is_dir):
                yield Advice(
                    place_of("models_dirs"), f"there is no folder {folder}", "make it, or mend its name"
                )
        if config.default_model:
            yield from self._model("default_model", config.default_model)
        for name, table in config.models.items():
            yield from self._table(f'models."{name}"', name, table)
        for name, group in config.groups.items():
            for model in group.models:
                yield from self._model(f'groups."{name}".models', model)

    def _general_instance(self) -> Iterator[Advice]:
        """``default`` is what is taken where nothing is said, and then any only instance will do."""
        name = self._config.instance
        if name == "default":
            return
        fault = self._fault_of_instance(name)
        if fault is not None:
            try:
                instead = f"; {self._store.choose(preferred=name).card.instance!r} is used"
            except LlamamgrError:
                instead = ""
            yield Advice(place_of("instance"), f"{fault.what}{instead}", fault.hint)

    def _fault_of_instance(self, name: str) -> LlamamgrError | None:
        try:
            self._store.current(name)
        except LlamamgrError as error:
            return error
        return None

    def _model(self, key: str, name: str) -> Iterator[Advice]:
        try:
            self._index.resolve(name)
        except LlamamgrError as error:
            yield Advice(key, error.what, error.hint)

    def _table(self, key: str, name: str, table: ModelConfig) -> Iterator[Advice]:
        yield from self._name(key, name)
        if table.instance and (fault := self._fault_of_instance(table.instance)) is not None:
            yield Advice(f"{key}.instance", fault.what, fault.hint)
        yield from self._aliases(key, name, table)
        yield from _files(key, table)
        build = self._build(table) if table.flags else None
        if build is not None:
            for fault in flag_faults(table, build):
                yield Advice(f"{key}.flags", fault.what, fault.hint)

    def _name(self, key: str, name: str) -> Iterator[Advice]:
        """A table holds for the model of just this name, or for every tag of it."""
        wanted = name.lower()
        if wanted in self._names or any(known.rpartition(":")[0] == wanted for known in self._names):
            return
        try:
            meant = self._index.resolve(name).name
        except LlamamgrError as error:
            yield Advice(key, error.what, error.hint)
        else:
            yield Advice(key, "no model has this name in full", f'it may be meant for [models."{meant}"]')

    def _aliases(self, key: str, name: str, table: ModelConfig) -> Iterator[Advice]:
        own = self._resolved(name)
        for alias in table.aliases:
            hidden = self._index.named(alias)
            if hidden is not None and (own is None or hidden.name != own.name):
                yield Advice(
                    f"{key}.aliases",
                    f'"{alias}" hides the model {hidden.name}',
                    f"who asks for {alias} gets {name}; choose another alias if that is not wanted",
                )

    def _resolved(self, name: str) -> ModelCard | None:
        try:
            return self._index.resolve(name)
        except LlamamgrError:
            return None

    def _build(self, table: ModelConfig) -> Build | None:
        try:
            return self._store.choose(table.instance, self._config.instance)
        except LlamamgrError:
            return None


def _files(key: str, table: ModelConfig) -> Iterator[Advice]:
    named = {"draft_model": (table.draft_model,), "projector": (table.projector,), "adapters": table.adapters}
    for setting, paths in named.items():
        for path in filter(None, paths):
            if not _is_there(Path(path), Path.is_file):
                yield Advice(f"{key}.{setting}", f"there is no file {path}", _NOT_THERE)


def _is_there(path: Path, kind: Callable[[Path], bool]) -> bool:
    """False also where this user may not look."""
    try:
        return kind(path)
    except OSError:
        return False
