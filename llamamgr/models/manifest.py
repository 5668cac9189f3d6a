"""Manifests: what a model is made of, in the form of Ollama's registry and store.

::

    manifests/<host>/<namespace>/<model>/<tag>    JSON: a config and layers, each named by its digest
    blobs/sha256-<64 hex>                         a layer's content

A layer may carry ``path``: then its content is a GGUF file that stays where it lies, outside of the store, and its digest is
what the index calls the file by: of its header, size and samples (reading 40 GB to name it would take a minute). Ollama
ignores the key.
Facts: Ollama manifest/manifest.go, server/layer.go, server/images.go.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from llamamgr.core.digests import parse_digest
from llamamgr.core.errors import UsageError

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
KIND = "application/vnd.ollama.image."
LONGEST = 4 * 1024 * 1024  # bytes of a manifest
LONGEST_TEXT = 4 * 1024 * 1024  # bytes of a layer that is text
_MOST_LAYERS = 2000


class Layer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``digest`` is ``sha256:<hex>``, ``size`` bytes, ``parent`` (``from``) the name of the model it was taken from."""

    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int
    parent: str = msgspec.field(default="", name="from")
    path: str = ""

    @property
    def kind(self) -> str:
        """``model``, ``projector``, ``adapter``, ``template``, ``system``, ``params``, ``messages``, ``license`` …"""
        return self.media_type.removeprefix(KIND)

    @property
    def hex(self) -> str:
        return parse_digest(self.digest)


class Manifest(msgspec.Struct, frozen=True):
    config: Layer
    layers: tuple[Layer, ...]
    schema_version: int = msgspec.field(default=2, name="schemaVersion")
    media_type: str = msgspec.field(default=MANIFEST, name="mediaType")

    def of(self, kind: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.kind == kind)

    @property
    def size(self) -> int:
        """Bytes of everything, as Ollama tells a model's size."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def hexes(self) -> frozenset[str]:
        """The blobs that it needs in its own store."""
        return frozenset(layer.hex for layer in (self.config, *self.layers) if not layer.path)


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """The config blob, as far as it is read here (source: types/model/config.go)."""

    model_format: str = "gguf"
    model_family: str = ""
    model_families: tuple[str, ...] | None = ()
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""


def parse_manifest(data: bytes) -> Manifest:
    """``UsageError`` for what is no manifest, or one that no honest store would hold."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        layers = (manifest.config, *manifest.layers)
        for layer in layers:
            parse_digest(layer.digest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"a manifest that cannot be read: {error}", "pull or create the model again"
        ) from None
    if len(layers) > _MOST_LAYERS or any(layer.size < 0 or layer.size > 2**53 for layer in layers):
        raise UsageError("a manifest with impossible layers", "pull or create the model again")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """As Ollama writes it: the same manifest has the same bytes, and so the same digest."""
    order = {"schemaVersion": manifest.schema_version, "mediaType": manifest.media_type}
    return msgspec.json.encode({**order, "config": manifest.config, "layers": manifest.layers})


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_config(data: bytes) -> Config:
    """The config in ``data``; an empty one when it cannot be read, since nothing vital is in it."""
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Config()


def read_settings(data: bytes) -> dict[str, Any]:
    """The parameters in a ``params`` layer; none when it cannot be read."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


class _Said(msgspec.Struct):
    role: str = ""
    content: str = ""


def read_messages(data: bytes) -> tuple[tuple[str, str], ...]:
    """Role and text of each message in a ``messages`` layer; none when it cannot be read."""
    try:
        return tuple((said.role, said.content) for said in msgspec.json.decode(data, type=list[_Said]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def encode_messages(messages: tuple[tuple[str, str], ...]) -> bytes:
    return msgspec.json.encode([{"role": role, "content": content} for role, content in messages])
