"""Models fetched: from registries that speak Ollama's protocol (``hf.co`` does), and from Hugging Face by file.

::

    manifest, or the hub's list of files ─► blobs, each resumed where it stopped and checked ─► manifest published

Statuses and their order are Ollama's (source: server/images.go, server/download.go). A blob under way is called
``sha256-<hex>-partial`` and taken up again by the next pull, also after a kill.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from llamamgr.core import hub
from llamamgr.core.config import RegistryConfig
from llamamgr.core.errors import (
    DiskFullError,
    LlamamgrError,
    SourceUnreachableError,
    UsageError,
)
from llamamgr.core.hub import HubFile, HubSpec
from llamamgr.core.names import DEFAULT_HOST, ModelName
from llamamgr.host import model_caches
from llamamgr.host.registry import Registry
from llamamgr.models import manifest as manifests
from llamamgr.models.download import Partial, fill, size_of
from llamamgr.models.facts import read_facts
from llamamgr.models.manifest import CONFIG, KIND, MANIFEST, Layer, Manifest
from llamamgr.models.progress import SUCCESS, Progress, Tell
from llamamgr.models.store import Store

_LIST = 32 * 1024 * 1024  # bytes of a hub's list of files
_EVERY = 0.1  # seconds between two lines of progress
_SPARE = 64 * 1024 * 1024


class Wish(msgspec.Struct, frozen=True):
    """What to pull. ``insecure`` allows http for the registry."""

    name: str
    insecure: bool = False


class Puller:
    """Pulls into ``store``. Several pulls may run at once; a blob that two of them need is fetched once.

    ``registry`` gives the addresses in force.
    """

    def __init__(self, store: Store, registry: Callable[[], RegistryConfig], version: str = "") -> None:
        self._store = store
        self._registry = registry
        self._version = version
        self._underway: dict[str, tuple[asyncio.Lock, int]] = {}

    async def pull(self, wish: Wish, tell: Tell) -> ModelName:
        """Fetch a model and tell how it goes; its name in the index. Cancelling it leaves what came for the next time.

        Errors as ``Registry.stream`` with ``pull model manifest: `` before those of the first question; ``UsageError`` for a digest
        that does not match, ``DiskFullError`` before anything is fetched that would not fit.
        """
        tell(Progress("pulling manifest"))
        async with Registry(self._version, self._tokens()) as remote:
            if hub.is_hub_name(wish.name):
                return await self._from_hub(remote, hub.parse_hub_name(wish.name), tell)
            name = ModelName.parse(wish.name)
            try:
                return await self._from_registry(remote, name, wish.insecure, tell)
            except UsageError:
                # the hub's registry refuses split models, its files are there all the same
                if name.host not in (hub.HOST, "huggingface.co"):
                    raise
                quant = "" if name.tag == "latest" else name.tag
                return await self._from_hub(remote, HubSpec(name.namespace, name.model, quant), tell)

    @property
    def _hub(self) -> str:
        return model_caches.hub_endpoint() or self._registry().hub.rstrip("/")

    def _tokens(self) -> dict[str, str]:
        token = model_caches.hub_token()
        hosts = ("hf.co", "huggingface.co", self._hub.partition("://")[2].partition("/")[0].lower())
        return dict.fromkeys(hosts, token) if token else {}

    # -- Ollama's protocol

    async def _from_registry(
        self, remote: Registry, name: ModelName, insecure: bool, tell: Tell
    ) -> ModelName:
        base = f"{self._base(name, insecure)}/v2/{name.namespace}/{name.model}"
        manifest = await self._manifest(remote, f"{base}/manifests/{name.tag}")
        layers = list(dict.fromkeys((*manifest.layers, manifest.config)))
        self._require_space(layers)
        for layer in layers:
            await self._fetch(remote, f"{base}/blobs/{layer.digest}", layer, tell)
        return await self._publish(name, manifest, tell)

    def _base(self, name: ModelName, insecure: bool) -> str:
        if name.host == DEFAULT_HOST:
            return self._registry().ollama.rstrip("/")
        return f"{'http' if insecure else 'https'}://{name.host}"

    async def _manifest(self, remote: Registry, url: str) -> Manifest:
        try:
            data = await remote.read(url, manifests.LONGEST, MANIFEST)
            manifest = manifests.parse_manifest(data)
        except LlamamgrError as error:
            error.what = f"pull model manifest: {error.what}"
            raise
        # a place on somebody else's disk means nothing here
        layers = tuple(msgspec.structs.replace(layer, path="") for layer in manifest.layers)
        if not any(layer.kind == "model" for layer in layers):
            raise UsageError("pull model manifest: it has no GGUF file", "it cannot be run by llama.cpp")
        config = msgspec.structs.replace(manifest.config, path="")
        return msgspec.structs.replace(manifest, layers=layers, config=config)

    # -- the hub's files

    async def _from_hub(self, remote: Registry, spec: HubSpec, tell: Tell) -> ModelName:
        files, commit = await self._listed(remote, spec)
        choice = hub.choose(files, spec)
        wanted = [(file, "model") for file in choice.parts]
        wanted += [(choice.projector, "projector")] if choice.projector else []
        layers = []
        sized = [Layer(KIND + kind, f"sha256:{file.sha256 or '0' * 64}", file.size) for file, kind in wanted]
        self._require_space(sized)
        for (file, kind), layer in zip(wanted, sized, strict=True):
            url = f"{self._hub}/{spec.id}/resolve/{commit}/{_quoted(file.path)}"
            hex_digest = await self._fetch(remote, url, layer if file.sha256 else None, tell, file)
            layers.append(Layer(KIND + kind, f"sha256:{hex_digest}", file.size))
        config = await asyncio.to_thread(self._described, layers)
        return await self._publish(spec.name(choice.quant), Manifest(config, tuple(layers)), tell)

    async def _listed(self, remote: Registry, spec: HubSpec) -> tuple[list[HubFile], str]:
        revision = _quoted(spec.revision or "main").replace("/", "%2F")
        url = f"{self._hub}/api/models/{spec.id}/revision/{revision}?blobs=true"
        try:
            data = await remote.read(url, _LIST)
            found = msgspec.json.decode(data, type=_Repository)
        except msgspec.DecodeError as error:
            raise SourceUnreachableError(
                f"{self._hub} sent what cannot be read: {error}", "try again"
            ) from None
        except LlamamgrError as error:
            error.what = f"pull model manifest: {error.what}"
            raise
        files = [
            HubFile(one.rfilename, (one.lfs.size if one.lfs else one.size) or 0, _sha256(one.lfs))
            for one in found.siblings
        ]
        return files, found.sha or spec.revision or "main"

    def _described(self, layers: list[Layer]) -> Layer:
        """A config for files that came without one."""
        path = self._store.blob(layers[0].hex)
        info = path.stat()
        facts = read_facts(str(path), info.st_size, info.st_mtime_ns)
        if facts.problem:
            raise UsageError(f"the file cannot be used: {facts.problem}", "try another quant or file")
        config = {"model_format": "gguf", "model_family": facts.arch, "model_families": [facts.arch]}
        return self._store.add(msgspec.json.encode({**config, "file_type": facts.quant}), CONFIG)[0]

    # -- blobs

    async def _fetch(
        self, remote: Registry, url: str, layer: Layer | None, tell: Tell, file: HubFile | None = None
    ) -> str:
        """Have a blob in the store; its digest (hex). Without ``layer`` only the size of ``file`` is known beforehand."""
        if layer is None:
            assert file is not None
            key = hashlib.sha256(f"{url} {file.size}".encode()).hexdigest()
            status, digest, size, expected = f"pulling {Path(file.path).name}", "", file.size, ""
        else:
            key = expected = layer.hex
            status, digest, size = f"pulling {key[:12]}", layer.digest, layer.size
        last = 0.0

        def report(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _EVERY or done == size:
                last = now
                tell(Progress(status, digest, size, done))

        async with self._alone(key):
            if expected and self._store.has_blob(expected):
                report(size)
                return expected
            partial = Partial(self._store.blob(key))
            try:
                await asyncio.to_thread(partial.take_up, size)
                report(partial.size)
                await fill(partial, remote, url, size, report)
                return await asyncio.to_thread(partial.finish, self._store, expected)
            finally:
                partial.close()

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Only one pull at a time works on a blob; the others find it there."""
        lock, users = self._underway.get(key, (asyncio.Lock(), 0))
        self._underway[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._underway[key]
            self._underway[key] = lock, users - 1
            if users == 1:
                del self._underway[key]

    def _require_space(self, layers: list[Layer]) -> None:
        needed = 0
        for layer in layers:
            blob = self._store.blob(layer.hex)
            if not blob.exists():
                needed += layer.size - size_of(blob.with_name(f"{blob.name}-partial"))
        self._store.root.mkdir(parents=True, exist_ok=True)
        info = os.statvfs(self._store.root)
        free = info.f_bavail * info.f_frsize
        if needed and free < needed + _SPARE:
            raise DiskFullError(
                f"{needed / 1e9:.1f} GB are to be fetched, and {free / 1e9:.1f} GB are free in {self._store.root}",
                "free some space, or choose a smaller quant",
            )

    async def _publish(self, name: ModelName, manifest: Manifest, tell: Tell) -> ModelName:
        tell(Progress("verifying sha256 digest"))
        tell(Progress("writing manifest"))
        if await asyncio.to_thread(self._store.find, name):
            tell(Progress("removing unused layers"))

        def publish() -> None:
            with self._store.changing():
                self._store.publish(name, manifest)
            self._store.tidy()

        await asyncio.to_thread(publish)
        tell(SUCCESS)
        return name


class _Lfs(msgspec.Struct):
    sha256: str = ""
    oid: str = ""
    size: int | None = None


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None


class _Repository(msgspec.Struct):
    siblings: list[_Sibling] = []
    sha: str = ""


def _sha256(lfs: _Lfs | None) -> str:
    digest = (lfs.sha256 or lfs.oid.removeprefix("sha256:")).lower() if lfs else ""
    return digest if len(digest) == 64 and not set(digest) - set("0123456789abcdef") else ""


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path, safe="/")
