"""Where models are looked for: kinds of sources → folders to walk through, and stores to read.

==============  =====================================================================
``store``       the own store: files, and what was pulled and created
``folders``     ``models_dirs`` of the configuration
``ollama``      Ollama's store
``huggingface`` the Hub's cache: the snapshot of ``main``, else the newest
``llama.cpp``   the flat cache of older llama.cpp
``lmstudio``    LM Studio's folder
==============  =====================================================================

All are read in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llamamgr.core.cards import SkippedFile
from llamamgr.core.config import Config
from llamamgr.core.errors import DiskFullError
from llamamgr.core.hub import HOST
from llamamgr.host import model_caches
from llamamgr.host.paths import Paths
from llamamgr.models import selftest
from llamamgr.models.scan import Root
from llamamgr.models.store import Store

EMBEDDED = "embedded"
OWN = "store"
_STORE_FOLDERS = ("blobs", "manifests")
_REPOSITORY = re.compile(r"models--([A-Za-z0-9_][A-Za-z0-9_.-]*?)--([A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")
_FLAT_MANIFEST = re.compile(r"manifest=([^=]+)=([^=]+)=[^=]*\.json\Z")


class Sources(msgspec.Struct, frozen=True):
    """Folders to walk through in this order, stores with what their models are said to come from, and what is in the way."""

    roots: tuple[Root, ...]
    stores: tuple[tuple[Store, str], ...]
    faults: tuple[SkippedFile, ...] = ()


def sources_of(paths: Paths, config: Config) -> Sources:
    """The embedded model first, then the kinds that the configuration has, in the order of the table above."""
    roots, faults = _embedded(paths)
    stores: list[tuple[Store, str]] = []
    wanted = config.sources
    if OWN in wanted and paths.models.is_dir():
        roots.append(Root(str(paths.models), OWN, skipped=_STORE_FOLDERS))
        stores.append((Store(paths.models), OWN))
    if "folders" in wanted:
        folders = (str(folder_of(folder)) for folder in config.models_dirs if folder)
        roots += [Root(folder, folder) for folder in folders]
    if "ollama" in wanted:
        stores += [(Store(folder), "ollama") for folder in model_caches.ollama_stores()]
    if "huggingface" in wanted:
        roots += [root for cache in model_caches.hub_caches() for root in _hub_roots(cache)]
    if "llama.cpp" in wanted:
        roots += [_flat_root(folder) for folder in model_caches.llama_caches()]
    if "lmstudio" in wanted:
        roots += [Root(str(folder), "lmstudio") for folder in model_caches.lmstudio_folders()]
    return Sources(tuple(roots), tuple(stores), tuple(faults))


def folder_of(text: str) -> Path:
    """One of ``models_dirs`` as a path; the home of a user that there is not is a folder that is not there."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        return Path(text).absolute()


def embedded_folder(paths: Paths) -> Path:
    """Where the embedded model is written; where that fails, this is the path among what was passed over."""
    return paths.cache / selftest.NAME


def _embedded(paths: Paths) -> tuple[list[Root], list[SkippedFile]]:
    folder = embedded_folder(paths)
    try:
        return [Root(str(selftest.ensure(folder).parent), EMBEDDED)], []
    except (OSError, DiskFullError) as error:  # what it is for works without it: other models are elsewhere
        told = error.what if isinstance(error, DiskFullError) else error.strerror or str(error)
        return [], [SkippedFile(str(folder), told)]


def _hub_roots(cache: Path) -> Iterator[Root]:
    for name in sorted(_listed(cache)):
        found = _REPOSITORY.match(name)
        snapshot = _snapshot(cache / name) if found else None
        if found and snapshot:
            yield Root(str(snapshot), "huggingface", repository=f"{HOST}/{found[1]}/{found[2]}")


def _snapshot(folder: Path) -> Path | None:
    try:
        main = (folder / "refs" / "main").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    snapshots = [folder / "snapshots" / name for name in _listed(folder / "snapshots")]
    chosen = [path for path in snapshots if path.name == main]
    try:
        return next(iter(chosen or sorted(snapshots, key=lambda path: -path.stat().st_mtime)), None)
    except OSError:
        return None


def _flat_root(folder: Path) -> Root:
    """Its files begin with ``org_repo_``; the manifests beside them tell where the one ends and the other begins."""
    prefixes = {}
    for name in _listed(folder):
        found = _FLAT_MANIFEST.match(name)
        if found:
            prefixes[f"{found[1]}_{found[2]}_"] = f"{HOST}/{found[1]}/{found[2]}"
    return Root(str(folder), "llama.cpp", prefixes=tuple(sorted(prefixes.items())))


def _listed(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
