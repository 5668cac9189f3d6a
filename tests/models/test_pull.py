"""Pulls from a registry that behaves as Ollama's and Hugging Face's, well and badly."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamgr.core.config import Config, RegistryConfig
from llamamgr.core.errors import (
    BusyError,
    DiskFullError,
    LlamamgrError,
    NotFoundError,
    PermissionDeniedError,
    SourceUnreachableError,
    UsageError,
)
from llamamgr.host.paths import Paths
from llamamgr.models import download
from llamamgr.models.index import Index
from llamamgr.models.progress import Progress
from llamamgr.models.pull import Puller, Wish
from llamamgr.models.store import Store
from tests.fakes import registry
from tests.fakes.registry import TOKEN, FakeRegistry
from tests.models.conftest import Write

GO = b"{{ range .Messages }}{{ .Content }}{{ end }}"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with registry.running() as fake:
        yield fake


@pytest.fixture
def index(paths: Paths) -> Index:
    return Index(paths, Config(sources=("store",)))


@pytest.fixture
def puller(fake: FakeRegistry, index: Index) -> Puller:
    return Puller(index.store, lambda: RegistryConfig(ollama=fake.url, hub=fake.url), "1.0")


@pytest.fixture
def model(write: Write) -> bytes:
    return write("m.gguf", size=50_000).read_bytes()


def blobs(store: Store) -> set[str]:
    return (
        {path.name for path in (store.root / "blobs").iterdir()} if (store.root / "blobs").exists() else set()
    )


async def pull(puller: Puller, name: str, *, insecure: bool = False) -> list[Progress]:
    told: list[Progress] = []
    await puller.pull(Wish(name, insecure), told.append)
    return told


async def test_a_model_of_a_registry_comes_with_all_its_texts(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    params = json.dumps({"stop": ["X"]}).encode()
    manifest = fake.add_model(
        "library/tiny", "1b", model=model, template=GO, params=params, license=[b"A", b"B"]
    )
    told = await pull(puller, "tiny:1b")
    card = index.resolve("tiny:1b")
    assert (card.template, card.settings, card.licenses) == (GO.decode(), {"stop": ["X"]}, ("A", "B"))
    assert card.manifest == hashlib.sha256(manifest).hexdigest()
    assert Path(card.path).read_bytes() == model
    digest = hashlib.sha256(model).hexdigest()
    words = list(dict.fromkeys(progress.status for progress in told))
    assert words[0] == "pulling manifest" and words[1] == f"pulling {digest[:12]}"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    last = [progress for progress in told if progress.digest == f"sha256:{digest}"][-1]
    assert (last.completed, last.total) == (len(model), len(model))


async def test_a_second_pull_fetches_only_what_is_new_and_drops_what_is_old(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model, system=b"old")
    await pull(puller, "tiny")
    fake.add_model("library/tiny", "latest", model=model, system=b"new")
    fake.requests.clear()
    told = await pull(puller, "tiny")
    assert len(fake.asked("/blobs/")) == 1
    assert Progress("removing unused layers") in told
    assert index.resolve("tiny").system == "new"
    assert f"sha256-{hashlib.sha256(b'old').hexdigest()}" not in blobs(index.store)


async def test_a_cut_download_goes_on_where_it_stopped(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    fake.cuts = [10_000, 40_000]
    await pull(puller, "tiny")
    ranges = [headers.get("range") for headers in fake.asked(hashlib.sha256(model).hexdigest())]
    assert ranges == [None, "bytes=10000-", "bytes=50000-"]
    assert Path(index.resolve("tiny").path).read_bytes() == model


async def test_what_an_earlier_pull_left_is_taken_up(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    blob = index.store.blob(hashlib.sha256(model).hexdigest())
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}-partial").write_bytes(model[:30_000])
    told = await pull(puller, "tiny")
    assert [headers["range"] for headers in fake.asked(blob.name[7:])] == ["bytes=30000-"]
    assert next(progress for progress in told if progress.digest).completed == 30_000
    assert blob.read_bytes() == model


async def test_a_server_without_ranges_begins_again(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    fake.ignores_range, fake.cuts = True, [10_000]
    await pull(puller, "tiny")
    assert Path(index.resolve("tiny").path).read_bytes() == model


async def test_a_server_that_only_ever_cuts_ends_in_an_error_that_keeps_what_came(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(download, "_FRUITLESS", 2)
    fake.add_model("library/tiny", "latest", model=model)
    fake.cuts = [10_000, *[0] * 50]
    with pytest.raises(SourceUnreachableError, match="stopped at 10,000 of"):
        await pull(puller, "tiny")
    assert index.store.entries() == []
    assert [name for name in blobs(index.store) if name.endswith("-partial")]


async def test_a_wrong_digest_leaves_nothing(fake: FakeRegistry, puller: Puller, index: Index, model: bytes):
    fake.add_model("library/tiny", "latest", model=model)
    fake.spoils = True
    with pytest.raises(UsageError, match="digest mismatch, file must be downloaded again: want sha256:"):
        await pull(puller, "tiny")
    assert blobs(index.store) == set() and index.store.entries() == []


async def test_more_than_was_told_is_refused(fake: FakeRegistry, puller: Puller, index: Index, model: bytes):
    fake.add_model("library/tiny", "latest", model=model)
    fake.pad = b"more"
    with pytest.raises(UsageError, match="sends more than the"):
        await pull(puller, "tiny")
    assert index.store.entries() == []


async def test_the_token_service_of_a_401_is_asked_and_its_token_stays_with_the_registry(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    fake.needs_token, fake.redirects_to = True, f"localhost:{fake.port}"
    await pull(puller, "tiny")
    assert len(fake.asked("/token?service=fake&scope=repository%3Alibrary%2Ftiny%3Apull")) == 1
    assert fake.asked("/blobs/")[0]["authorization"] == f"Bearer {TOKEN}"
    assert all("authorization" not in headers for headers in fake.asked("/cdn/"))
    assert index.resolve("tiny").size > len(model)


@pytest.mark.parametrize(
    ("statuses", "error", "text"),
    [
        ([404], NotFoundError, "pull model manifest: file does not exist"),
        ([401], PermissionDeniedError, "wants to know who asks (401): refused with 401"),
        ([403], PermissionDeniedError, "(403)"),
        ([400], UsageError, "refused (400): refused with 400"),
        ([429] * 9, BusyError, "gets too many requests (429)"),
        ([500] * 9, SourceUnreachableError, "failed (500)"),
    ],
)
async def test_a_refusal_is_told_by_its_kind(
    fake: FakeRegistry,
    puller: Puller,
    model: bytes,
    statuses: list[int],
    error: type[LlamamgrError],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("llamamgr.host.registry._TRIES", 2)
    fake.add_model("library/tiny", "latest", model=model)
    fake.refusals = {"/v2/": statuses}
    with pytest.raises(error) as caught:
        await pull(puller, "tiny")
    assert text in caught.value.what
    assert caught.value.hint


async def test_a_server_that_asks_for_patience_is_asked_again(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    fake.refusals = {"/v2/": [429, 503]}
    await pull(puller, "tiny")
    assert index.resolve("tiny")


async def test_one_that_asks_for_more_patience_than_a_client_has_is_told_at_once(
    fake: FakeRegistry, puller: Puller, model: bytes
):
    fake.add_model("library/tiny", "latest", model=model)
    fake.refusals, fake.retry_after = {"/v2/": [429]}, "3600"
    with pytest.raises(BusyError) as caught:
        await pull(puller, "tiny")
    assert caught.value.retry_after == 3600


async def test_nobody_at_the_address_is_unreachable(index: Index):
    puller = Puller(index.store, lambda: RegistryConfig(ollama="http://127.0.0.1:9"))
    with pytest.raises(SourceUnreachableError, match=r"pull model manifest: 127.0.0.1:9 cannot be reached"):
        await pull(puller, "tiny")


async def test_another_host_speaks_tls_unless_told_otherwise(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("me/tiny", "v1", model=model)
    name = f"{fake.host}/me/tiny:v1"
    with pytest.raises(SourceUnreachableError):
        await pull(puller, name)
    await pull(puller, name, insecure=True)
    assert index.resolve(name).name == name


async def test_a_manifest_without_gguf_or_with_places_of_its_own_is_not_trusted(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    fake.add_model("library/tensors", "latest", tensor=b"x")
    with pytest.raises(UsageError, match="it has no GGUF file"):
        await pull(puller, "tensors")
    manifest = json.loads(fake.add_model("library/evil", "latest", model=model))
    manifest["layers"][0]["path"] = "/etc/passwd"
    fake.manifests["library/evil", "latest"] = json.dumps(manifest).encode()
    await pull(puller, "evil")
    assert Path(index.resolve("evil").path).parent == index.store.root / "blobs"


async def test_a_model_that_does_not_fit_is_refused_before_it_is_fetched(
    fake: FakeRegistry, puller: Puller, model: bytes
):
    manifest = json.loads(fake.add_model("library/huge", "latest", model=model))
    manifest["layers"][0] |= {"size": 2**52, "digest": f"sha256:{'0' * 64}"}
    fake.manifests["library/huge", "latest"] = json.dumps(manifest).encode()
    with pytest.raises(DiskFullError, match="are to be fetched"):
        await pull(puller, "huge")
    assert not fake.asked("/blobs/")


async def test_a_file_of_the_hub_is_pulled_with_its_projector_and_its_revision(
    fake: FakeRegistry, puller: Puller, index: Index, write: Write, model: bytes
):
    eye = write("eye.gguf", general__architecture="clip", clip__has_vision_encoder=True).read_bytes()
    fake.repositories["org/repo"] = {
        "m-Q4_K_M.gguf": model,
        "m-Q8_0.gguf": b"another",
        "mmproj-F16.gguf": eye,
        "README.md": b"#",
    }
    await pull(puller, "hf:org/repo")
    card = index.resolve("hf:org/repo")
    assert card.name == "hf.co/org/repo:Q4_K_M" and "vision" in card.capabilities
    assert Path(card.path).read_bytes() == model and Path(card.projector).read_bytes() == eye
    await pull(puller, "hf:org/repo:m-Q4_K_M.gguf@v1")
    index.refresh()
    assert index.resolve("hf:org/repo:m-Q4_K_M.gguf@v1").parts == card.parts
    assert fake.asked("/resolve/0123456789abcdef")


async def test_all_parts_of_a_split_model_are_pulled_and_found_by_the_engine_under_its_names(
    fake: FakeRegistry, puller: Puller, index: Index, write: Write
):
    names = [f"Q8_0/m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    parts = [
        write(Path(name).name, split__no=n, split__count=2, size=4 + n).read_bytes()
        for n, name in enumerate(names)
    ]
    fake.repositories["org/repo"] = dict(zip(names, parts, strict=True))
    await pull(puller, "hf:org/repo:Q8_0")
    card = index.resolve("hf:org/repo:Q8_0")
    assert [Path(part).name for part in card.parts] == [
        "model-00001-of-00002.gguf",
        "model-00002-of-00002.gguf",
    ]
    assert [Path(part).read_bytes() for part in card.parts] == parts


async def test_what_the_hubs_registry_refuses_is_pulled_by_its_files(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Puller, "_base", lambda self, name, insecure: fake.url)
    fake.repositories["org/repo"] = {"m-Q4_K_M.gguf": model}
    fake.refusals = {"/v2/": [400]}
    await pull(puller, "hf.co/org/repo:Q4_K_M")
    assert Path(index.resolve("hf.co/org/repo:Q4_K_M").path).read_bytes() == model


async def test_a_quant_or_repository_that_is_not_there_is_not_found(
    fake: FakeRegistry, puller: Puller, model: bytes
):
    fake.repositories["org/repo"] = {"m-Q4_K_M.gguf": model}
    with pytest.raises(NotFoundError, match="org/repo has no Q2_K"):
        await pull(puller, "hf:org/repo:Q2_K")
    with pytest.raises(NotFoundError, match="pull model manifest: file does not exist"):
        await pull(puller, "hf:org/none")


async def test_the_users_token_goes_to_the_hub(
    fake: FakeRegistry, puller: Puller, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fake.repositories["org/repo"] = {"m-Q4_K_M.gguf": model}
    await pull(puller, "hf:org/repo")
    assert {headers["authorization"] for _, _, headers in fake.requests} == {"Bearer hf_secret"}


async def test_two_pulls_that_need_one_blob_fetch_it_once(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    for name in ("one", "two"):
        fake.add_model(f"library/{name}", "latest", model=model, system=name.encode())
    await asyncio.gather(pull(puller, "one"), pull(puller, "two"))
    assert len(fake.asked(hashlib.sha256(model).hexdigest())) == 1
    assert index.resolve("one").parts == index.resolve("two").parts


async def test_a_cancelled_pull_stops_at_once_and_leaves_what_it_has_for_the_next(
    fake: FakeRegistry, puller: Puller, index: Index, model: bytes
):
    import threading

    fake.add_model("library/tiny", "latest", model=model)
    fake.hold = threading.Event()
    task = asyncio.get_running_loop().create_task(pull(puller, "tiny"))
    assert await asyncio.to_thread(fake.held.wait, 10)
    partial = index.store.root / "blobs" / f"sha256-{hashlib.sha256(model).hexdigest()}-partial"
    async with asyncio.timeout(5):
        while not partial.exists():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    fake.hold.set()
    fake.hold = None
    await pull(puller, "tiny")
    assert Path(index.resolve("tiny").path).read_bytes() == model
