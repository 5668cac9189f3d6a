"""Release archives in place of a build: the right one, checked, or an error that says why not."""

import shutil
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import BuildFailedError, NotFoundError, SourceUnreachableError, VerifyFailedError
from llamamgr.core.recipe import Recipe
from llamamgr.instances import prebuilt
from llamamgr.instances.prebuilt import Platform, find_release
from llamamgr.instances.sources import Aim
from llamamgr.instances.updating import update
from llamamgr.instances.wishes import Wish
from tests.fakes.release_index import ReleaseIndex, archived

LINUX = Platform("ubuntu", "x64")


@pytest.fixture
def releases(monkeypatch):
    monkeypatch.setattr(prebuilt, "this_platform", lambda: LINUX)
    monkeypatch.setattr("llamamgr.instances.install.this_platform", lambda: LINUX)
    with ReleaseIndex() as index:
        yield index


@pytest.fixture
def programs(run_install, store, tmp_path) -> Path:
    """Programs and libraries side by side, as they lie in an official archive."""
    root = Path(run_install(instance="made", cmake="-DGGML_BACKEND_DL=ON").build.root)
    folder = tmp_path / "flat"
    shutil.copytree(root / "bin", folder, symlinks=True)
    shutil.copytree(root / "lib", folder, symlinks=True, dirs_exist_ok=True)
    (folder / "LICENSE").write_text("MIT")
    shutil.rmtree(store.root / "made")
    return folder


@pytest.fixture
def release(releases, programs, tmp_path):
    """Publish ``tag`` with an archive for the CPU of Linux."""

    def add(tag: str, ending: str = "tar.gz", **fields) -> None:
        name = f"llama-{tag}-bin-ubuntu-x64.{ending}"
        releases.add(tag, {name: archived(programs, tmp_path / name, f"llama-{tag}")}, **fields)

    return add


def wanted(releases: ReleaseIndex, **more) -> dict:
    return {"source": Source("prebuilt", releases.address), "instance": "pre", **more}


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_the_newest_release_with_an_archive_for_this_machine_is_taken_and_verified(
    releases, release, run_install, store, ending
):
    release("b7001", ending)
    releases.add("b7002", {"llama-b7002-bin-macos-arm64.tar.gz": b"x"})
    releases.add("v0.9.0", {})
    releases.add("b7003", {}, draft=True)
    made = run_install(**wanted(releases)).build
    assert made.card.number == 7001 and made.card.verified and store.current("pre") == made
    assert made.card.source == Source("prebuilt", releases.address, "b7001")
    assert made.card.capability is not None
    assert {"llama-server", "llama-quantize"} <= set(made.card.capability.tools)
    assert "LICENSE" not in made.card.capability.tools
    assert not run_install(**wanted(releases)).is_new


def test_a_release_may_be_named_and_updated_to_the_newest(releases, release, run_install, paths, question):
    release("b7001")
    release("b7002")
    assert run_install(**wanted(releases, aim=Aim("version", "7001"))).build.card.number == 7001
    assert (
        run_install(**wanted(releases, source=None, arch="", aim=Aim("tag", "b7002"))).build.card.number
        == 7002
    )
    run_install(**wanted(releases))
    release("b7003")
    done = update(Wish(instance="pre"), paths, question, lambda progress: None)
    assert done.outcome == "built" and done.build is not None and done.build.card.number == 7003
    assert update(Wish(instance="pre"), paths, question, lambda progress: None).outcome == "newest"
    with pytest.raises(NotFoundError, match="no release 'b9'"):
        run_install(**wanted(releases, aim=Aim("version", "b9")))


def test_a_broken_connection_is_taken_up_where_it_broke(releases, release, run_install):
    release("b7001")
    releases.cut = 2
    assert run_install(**wanted(releases)).is_new
    assert sum(path.startswith("/storage/") for path in releases.asked) == 3


def test_a_server_that_cannot_resume_is_asked_from_the_start(releases, release, run_install):
    release("b7001")
    releases.cut, releases.resumes = 1, False
    assert run_install(**wanted(releases)).is_new


def test_a_connection_that_breaks_again_and_again_is_an_unreachable_source(
    releases, release, run_install, store
):
    release("b7001")
    releases.cut = -1
    with pytest.raises(SourceUnreachableError, match="cannot get"):
        run_install(**wanted(releases))
    assert store.instances() == ((), ()) and not list(store.root.iterdir())


def test_an_archive_of_another_digest_is_refused_and_not_kept(releases, release, run_install, store):
    releases.lie = f"sha256:{'0' * 64}"
    release("b7001")
    with pytest.raises(SourceUnreachableError, match="is not what it should be"):
        run_install(**wanted(releases))
    assert store.instances() == ((), ()) and not list(store.root.iterdir())


def test_an_archive_without_a_digest_is_refused(releases, release, run_install):
    releases.lie = ""
    release("b7001")
    with pytest.raises(SourceUnreachableError, match="no sha256"):
        run_install(**wanted(releases))


def test_an_archive_that_is_gone_or_holds_no_server_is_told(releases, release, run_install, tmp_path):
    release("b7001")
    releases.files.clear()
    with pytest.raises(NotFoundError, match="404"):
        run_install(**wanted(releases))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README").write_text("nothing")
    name = "llama-b7002-bin-ubuntu-x64.tar.gz"
    releases.add("b7002", {name: archived(empty, tmp_path / name, "x")})
    with pytest.raises(BuildFailedError, match="holds no llama-server"):
        run_install(**wanted(releases))
    releases.add("b7003", {"llama-b7003-bin-ubuntu-x64.tar.gz": b"not an archive"})
    with pytest.raises(BuildFailedError, match="damaged"):
        run_install(**wanted(releases))


def test_a_link_that_leads_out_of_the_archive_is_refused(releases, run_install, tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "llama-server").symlink_to("/bin/true")
    for ending in ("zip", "tar.gz"):
        name = f"llama-b7001-bin-ubuntu-x64.{ending}"
        releases.releases.clear()
        releases.add("b7001", {name: archived(folder, tmp_path / name, "x")})
        with pytest.raises(BuildFailedError, match=r"damaged|link to elsewhere"):
            run_install(**wanted(releases))


def test_an_archive_whose_server_answers_wrongly_never_becomes_current(
    releases, run_install, store, tmp_path
):
    root = Path(run_install("-DFAKE_ANSWER=nonsense", instance="made", verify=False).build.root)
    name = "llama-b7001-bin-ubuntu-x64.tar.gz"
    folder = tmp_path / "flat"
    shutil.copytree(root / "bin", folder)
    shutil.copytree(root / "lib", folder, symlinks=True, dirs_exist_ok=True)
    releases.add("b7001", {name: archived(folder, tmp_path / name, "x")})
    with pytest.raises(VerifyFailedError, match="nonsense"):
        run_install(**wanted(releases))
    assert store.instance("pre").current == ""


NAMES = (
    "llama-b1-bin-macos-arm64.tar.gz",
    "llama-b1-bin-ubuntu-x64.tar.gz",
    "llama-b1-bin-ubuntu-arm64.tar.gz",
    "llama-b1-bin-ubuntu-vulkan-x64.tar.gz",
    "llama-b1-bin-ubuntu-cuda-13.4-x64.tar.gz",
    "llama-b1-bin-ubuntu-cuda-12.8-x64.tar.gz",
    "cudart-llama-bin-ubuntu-cuda-12.8-x64.tar.gz",
    "cudart-llama-bin-ubuntu-cuda-13.4-x64.tar.gz",
    "llama-b1-bin-ubuntu-rocm-10.0-x64.tar.gz",
    "llama-b1-bin-ubuntu-sycl-fp16-x64.tar.gz",
    "llama-b1-bin-ubuntu-sycl-fp32-x64.tar.gz",
    "llama-b1-bin-ubuntu-openvino-2026.2.1-x64.tar.gz",
    "llama-b1-bin-win-cpu-x64.zip",
    "llama-b1-ui.tar.gz",
    "llama-b1-xcframework.zip",
)


@pytest.mark.parametrize(
    ("arch", "machine", "taken"),
    [
        ("cpu", LINUX, ["llama-b1-bin-ubuntu-x64.tar.gz"]),
        ("cpu-portable", Platform("ubuntu", "arm64"), ["llama-b1-bin-ubuntu-arm64.tar.gz"]),
        ("metal", Platform("macos", "arm64"), ["llama-b1-bin-macos-arm64.tar.gz"]),
        ("vulkan", LINUX, ["llama-b1-bin-ubuntu-vulkan-x64.tar.gz"]),
        ("rocm", LINUX, ["llama-b1-bin-ubuntu-rocm-10.0-x64.tar.gz"]),
        ("sycl", LINUX, ["llama-b1-bin-ubuntu-sycl-fp16-x64.tar.gz"]),
        (
            "cuda",
            LINUX,
            ["llama-b1-bin-ubuntu-cuda-12.8-x64.tar.gz", "cudart-llama-bin-ubuntu-cuda-12.8-x64.tar.gz"],
        ),
    ],
)
def test_each_arch_takes_the_archives_made_for_it(releases, arch, machine, taken):
    releases.add("b1", dict.fromkeys(NAMES, b"x"))
    found = find_release(Source("prebuilt", releases.address), Recipe(arch, arch, 0), machine)
    assert [archive.url.rpartition("/")[2] for archive in found.archives] == taken


def test_an_arch_without_an_archive_is_answered_with_those_there_are(releases):
    releases.add("b1", dict.fromkeys(NAMES, b"x"))
    with pytest.raises(NotFoundError, match="arch 'musa'") as caught:
        find_release(Source("prebuilt", releases.address), Recipe("musa", "MUSA", 0), LINUX)
    assert "cpu, cuda-12.8, cuda-13.4" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        find_release(Source("prebuilt", releases.address, "b1"), Recipe("cpu", "CPU", 0), Platform("", ""))
    assert "there are: none" in caught.value.hint


@pytest.mark.parametrize("answer", ["nothing listens", "no list", "no json"])
def test_an_index_that_does_not_answer_as_one_is_told(releases, answer, monkeypatch):
    address = "http://127.0.0.1:9/releases" if answer == "nothing listens" else releases.address
    if answer == "no list":
        releases.releases = {"message": "hello"}  # type: ignore[assignment]
    if answer == "no json":
        monkeypatch.setattr("tests.fakes.release_index.json.dumps", lambda document: "<html>")
    with pytest.raises(SourceUnreachableError):
        find_release(Source("prebuilt", address), Recipe("cpu", "CPU", 0), LINUX)


def test_the_index_may_come_from_the_environment(releases, monkeypatch):
    releases.add("b1", dict.fromkeys(NAMES, b"x"))
    monkeypatch.setenv("LLAMAMGR_RELEASES", releases.address)
    assert find_release(Source("prebuilt"), Recipe("cpu", "CPU", 0), LINUX).number == 1
