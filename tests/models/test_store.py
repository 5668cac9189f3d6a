"""The own store: manifests and blobs appear by rename, are shared, and go with the last model that needs them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from llamamgr.core.errors import NotFoundError, UsageError
from llamamgr.core.names import ModelName
from llamamgr.models.manifest import CONFIG, Layer, Manifest, digest_of, encode_manifest, parse_manifest
from llamamgr.models.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def publish(store: Store, name: str, *texts: bytes) -> Manifest:
    layers = tuple(store.add(text, "system")[0] for text in texts)
    manifest = Manifest(store.add(b"{}", CONFIG)[0], layers)
    with store.changing():
        store.publish(ModelName.parse(name), manifest)
    return manifest


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs").iterdir()}


def blob_name(data: bytes) -> str:
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def test_a_published_model_is_found_in_any_case_and_read_as_it_was_written(store: Store):
    manifest = publish(store, "Tiny:1B", b"one")
    entry = store.find(ModelName.parse("tiny:1b"))
    assert entry is not None and entry.name.short == "Tiny:1B"
    read, data = store.read(entry)
    assert read == manifest and data == encode_manifest(manifest)
    assert Path(entry.path).relative_to(store.root) == Path("manifests/registry.ollama.ai/library/Tiny/1B")


def test_another_spelling_of_a_name_replaces_the_model(store: Store):
    publish(store, "tiny", b"one")
    publish(store, "TINY", b"two")
    assert [entry.name.short for entry in store.entries()] == ["tiny:latest"]
    assert blobs(store) == {blob_name(b"two"), blob_name(b"{}")}


def test_a_shared_blob_stays_until_its_last_model_goes(store: Store):
    publish(store, "a", b"shared", b"only a")
    publish(store, "b", b"shared")
    for name, left in (("a", {b"shared", b"{}"}), ("b", set[bytes]())):
        entry = store.find(ModelName.parse(name))
        assert entry is not None
        with store.changing():
            store.remove(entry)
        assert blobs(store) == {blob_name(data) for data in left}
    assert list((store.root / "manifests").rglob("*")) in (
        [],
        [store.root / "manifests" / "registry.ollama.ai"],
    )


def test_a_manifest_whose_blob_is_missing_is_not_published(store: Store):
    lost = Layer("x", "sha256:" + "0" * 64, 1)
    with store.changing(), pytest.raises(NotFoundError, match="is not in the store"):
        store.publish(ModelName.parse("x"), Manifest(store.add(b"{}", CONFIG)[0], (lost,)))
    assert store.entries() == []


def test_strangers_among_the_manifests_are_passed_over(store: Store):
    publish(store, "good", b"x")
    odd = store.root / "manifests" / "host" / "ns.with.dots" / "m"
    odd.mkdir(parents=True)
    (odd / "tag").write_text("{}")
    (store.root / "manifests" / "host" / "library" / "m" / "tag").mkdir(parents=True)
    assert [entry.name.short for entry in store.entries()] == ["good:latest"]


def test_a_blob_in_pieces_appears_only_when_it_is_what_it_should_be(store: Store):
    good = hashlib.sha256(b"abc").hexdigest()
    incoming = store.receive()
    incoming.write(b"ab")
    incoming.write(b"c")
    assert not store.has_blob(good)
    assert incoming.finish(good) == good
    assert store.blob(good).read_bytes() == b"abc"
    bad = store.receive()
    bad.write(b"abd")
    with pytest.raises(UsageError, match=f'digest mismatch, expected "sha256:{"0" * 64}", got "sha256:'):
        bad.finish("0" * 64)
    dropped = store.receive()
    dropped.write(b"x")
    dropped.drop()
    assert blobs(store) == {blob_name(b"abc")}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"config":{"mediaType":"x","digest":"sha256:../../etc","size":1},"layers":[]}',
        b'{"config":{"mediaType":"x","digest":"sha256:' + b"0" * 64 + b'","size":-1},"layers":[]}',
        b'{"config":{"mediaType":"x","digest":"sha256:' + b"0" * 64 + b'","size":1},"layers":' + b"[" * 5000,
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes):
    with pytest.raises(UsageError):
        parse_manifest(data)


def test_a_manifest_of_ollama_keeps_its_bytes_and_so_its_digest():
    layer = '{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:%s","size":5,"from":"tiny:latest"}'
    config = '{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:%s","size":2}'
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    text = f'{{"schemaVersion":2,"mediaType":"{kind}","config":{config % ("a" * 64)},"layers":[{layer % ("b" * 64)}]}}'
    manifest = parse_manifest(text.encode())
    assert encode_manifest(manifest) == text.encode()
    assert manifest.layers[0].parent == "tiny:latest" and manifest.size == 7
    assert len(digest_of(text.encode())) == 64


def test_what_interrupted_transfers_left_is_removed_after_a_week(store: Store):
    publish(store, "x", b"kept")
    old, new = store.root / "blobs" / ".incoming-1", store.root / "blobs" / f"sha256-{'1' * 64}-partial"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    store.tidy()
    assert not old.exists() and new.exists()
