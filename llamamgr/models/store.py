"""A store of manifests and blobs on disk: the own one, or another program's that is only read.

Everything appears by rename; a blob that is being received has a name that no reader takes for one. Several models may share
a blob: it goes when the last manifest that names it does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llamamgr.core.digests import parse_digest
from llamamgr.core.errors import InvalidNameError, LlamamgrError, NotFoundError, UsageError
from llamamgr.core.names import ModelName
from llamamgr.host.files import discard, disk_full_as_error, locked, write_atomic
from llamamgr.models import manifest as manifests
from llamamgr.models.manifest import KIND, Layer, Manifest

_READ = 4 * 1024 * 1024
_LOCK_WAIT = 30.0  # seconds for another change of the store
_FORGOTTEN = 7 * 86400.0  # seconds after which what an interrupted transfer left is removed


class Entry(msgspec.Struct, frozen=True):
    """A manifest file: whose it is, and its state by which a change is seen."""

    name: ModelName
    path: str
    size: int
    modified: int


class Store:
    """``root`` holds ``manifests/`` and ``blobs/``; neither need exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- reading

    def entries(self) -> list[Entry]:
        """Every manifest there is, in the order of names; what cannot be a model's name is passed over."""
        top = self.root / "manifests"
        found = []
        for path in sorted(top.glob("*/*/*/*")) if top.is_dir() else ():
            with contextlib.suppress(OSError, InvalidNameError):
                host, namespace, model, tag = path.relative_to(top).parts
                name = ModelName.parse(f"{host}/{namespace}/{model}:{tag}")
                info = path.stat()
                if path.is_file():
                    found.append(Entry(name, str(path), info.st_size, info.st_mtime_ns))
        return found

    def find(self, name: ModelName) -> Entry | None:
        """The entry of that name, whatever its case."""
        return next((entry for entry in self.entries() if entry.name.key == name.key), None)

    def read(self, entry: Entry) -> tuple[Manifest, bytes]:
        """The manifest and its bytes; ``UsageError`` when it is none, ``OSError`` when it is gone."""
        if entry.size > manifests.LONGEST:
            raise UsageError(f"a manifest of {entry.size:,} bytes", "pull or create the model again")
        data = Path(entry.path).read_bytes()
        return manifests.parse_manifest(data), data

    def blob(self, hex_digest: str) -> Path:
        """Where the blob is or would be; the digest is one that ``parse_digest`` gave."""
        return self.root / "blobs" / f"sha256-{parse_digest('sha256:' + hex_digest)}"

    def has_blob(self, hex_digest: str) -> bool:
        return self.blob(hex_digest).is_file()

    def file_of(self, layer: Layer) -> Path:
        """Where a layer's content is: in the store, or at its own path."""
        return Path(layer.path) if layer.path else self.blob(layer.hex)

    def text(self, layer: Layer) -> bytes:
        """A small layer's content, at most ``LONGEST_TEXT``."""
        with self.blob(layer.hex).open("rb") as file:
            return file.read(manifests.LONGEST_TEXT)

    def parts(self, manifest: Manifest) -> tuple[Path, ...]:
        """The GGUF parts of its model, by names from which the engine finds the later ones."""
        layers = manifest.of("model")
        if len(layers) < 2 or layers[0].path:
            return tuple(self.file_of(layer) for layer in layers)
        folder = self._parts_folder(layers)
        return tuple(folder / _part_name(number, len(layers)) for number in range(len(layers)))

    def _parts_folder(self, layers: tuple[Layer, ...]) -> Path:
        joined = "".join(layer.hex for layer in layers)
        return self.root / ".parts" / hashlib.sha256(joined.encode()).hexdigest()[:32]

    # -- changing

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the store's lock: between choosing what to remove and removing it nobody may begin to use it."""
        with locked(self.root.parent / "locks" / "models.lock", "the model store", wait=_LOCK_WAIT):
            yield

    def add(self, data: bytes, kind: str) -> tuple[Layer, bool]:
        """A layer with ``data``, and whether its blob was there already."""
        hex_digest = manifests.digest_of(data)
        layer = Layer(kind if "/" in kind else f"{KIND}{kind}", f"sha256:{hex_digest}", len(data))
        known = self.has_blob(hex_digest)
        if not known:
            write_atomic(self.blob(hex_digest), data)
        return layer, known

    def receive(self) -> Incoming:
        """A blob that comes in pieces."""
        folder = self.root / "blobs"
        folder.mkdir(parents=True, exist_ok=True)
        return Incoming(self, folder / f".incoming-{secrets.token_hex(8)}")

    def publish(self, name: ModelName, manifest: Manifest) -> Entry:
        """Make ``manifest`` the model ``name``; what only its predecessor needed is removed.

        Caller holds ``changing``. ``NotFoundError`` when a blob that it names is not there.
        """
        for hex_digest in manifest.hexes:
            if not self.has_blob(hex_digest):
                raise NotFoundError(f"blob sha256:{hex_digest} is not in the store", "send or pull it again")
        former = self.find(name)
        before = self._needed(former) if former else frozenset()
        layers = manifest.of("model")
        if len(layers) > 1 and not layers[0].path:
            self._join(layers)
        path = Path(former.path) if former else self._manifest_path(name)
        write_atomic(path, manifests.encode_manifest(manifest))
        self._prune(before - manifest.hexes)
        info = path.stat()
        return Entry(former.name if former else name, str(path), info.st_size, info.st_mtime_ns)

    def remove(self, entry: Entry) -> None:
        """Remove a model, and the blobs that no other one needs. Caller holds ``changing``."""
        needed = self._needed(entry)
        discard(Path(entry.path))
        for folder in list(Path(entry.path).parents)[:3]:
            with contextlib.suppress(OSError):
                folder.rmdir()  # stays when it holds others
        self._prune(needed)

    def tidy(self) -> None:
        """Remove what interrupted transfers left a week ago and nobody took up again."""
        limit = time.time() - _FORGOTTEN
        for pattern in (".incoming-*", "sha256-*-partial"):
            for path in (self.root / "blobs").glob(pattern):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < limit:
                        path.unlink()

    def _manifest_path(self, name: ModelName) -> Path:
        return self.root / "manifests" / name.host / name.namespace / name.model / name.tag

    def _needed(self, entry: Entry) -> frozenset[str]:
        try:
            return self.read(entry)[0].hexes
        except (OSError, LlamamgrError):
            return frozenset()

    def _prune(self, candidates: frozenset[str]) -> None:
        if not candidates:
            return
        entries = self.entries()
        kept = frozenset[str]().union(*(self._needed(entry) for entry in entries))
        for hex_digest in candidates - kept:
            discard(self.blob(hex_digest))
        self._drop_broken_parts()

    def _join(self, layers: tuple[Layer, ...]) -> None:
        """Give the blobs of a split model the names that llama.cpp looks for, as links."""
        folder = self._parts_folder(layers)
        if folder.is_dir():
            return
        scratch = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
        scratch.mkdir(parents=True)
        for number, layer in enumerate(layers):
            link = scratch / _part_name(number, len(layers))
            link.symlink_to(os.path.relpath(self.blob(layer.hex), folder))
        try:
            scratch.rename(folder)
        except OSError:
            _remove_links(scratch)
            if not folder.is_dir():
                raise

    def _drop_broken_parts(self) -> None:
        for folder in (self.root / ".parts").glob("*"):
            if any(not link.exists() for link in folder.iterdir()):
                _remove_links(folder)


class Incoming:
    """A blob while it comes in: ``write`` pieces, then ``finish`` or ``drop``. Blocking; hashing frees the interpreter's lock."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path
        self._hash = hashlib.sha256()
        self._file = path.open("xb")
        self.size = 0

    def write(self, data: bytes) -> None:
        """``DiskFullError`` when there is no room."""
        with disk_full_as_error(self._path):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self, expected: str = "") -> str:
        """Make it a blob and tell its digest (hex); ``UsageError`` in Ollama's words when it is not ``expected``."""
        with disk_full_as_error(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        found = self._hash.hexdigest()
        if expected and found != expected:
            self.drop()
            raise UsageError(
                f'digest mismatch, expected "sha256:{expected}", got "sha256:{found}"',
                "send the whole file again",
            )
        self._path.replace(self._store.blob(found))
        return found

    def drop(self) -> None:
        self._file.close()
        discard(self._path)


def take_in(store: Store, path: Path) -> tuple[str, int]:
    """Move a file, made beside the store, in as a blob: its digest (hex) and its size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    size = path.stat().st_size
    target = store.blob(digest.hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    return digest.hexdigest(), size


def _part_name(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.gguf"


def _remove_links(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for link in folder.iterdir():
            link.unlink()
        folder.rmdir()
