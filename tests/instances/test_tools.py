"""cmake and ninja: those on PATH, else wheels here, else wheels fetched into the store."""

from pathlib import Path

import pytest

from llamamgr.core.errors import MissingToolError, SourceUnreachableError
from llamamgr.host.compilers import Tool
from llamamgr.instances import tools
from llamamgr.instances.tools import build_tools, local_tool


def script(folder: Path, name: str, says: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)
    return str(folder / name)


@pytest.fixture
def bare(tmp_path, monkeypatch, index):
    """A PATH with nothing that builds, and no wheels in this environment."""
    monkeypatch.setattr(tools, "wheel_tool", lambda name, least: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_what_is_on_path_is_taken(bare, paths):
    cmake, ninja = script(bare, "cmake", "cmake version 3.30.1"), script(bare, "ninja", "1.12.0")
    found = build_tools(paths, pytest.fail, pytest.fail)
    assert (found.cmake, found.ninja) == (cmake, ninja)


def test_one_that_is_too_old_or_does_not_run_counts_as_missing(bare, paths):
    script(bare, "cmake", "cmake version 3.10.2")
    script(bare, "ninja", "no number at all")
    assert local_tool("cmake", paths) is None and local_tool("ninja", paths) is None


def test_an_arch_that_needs_a_newer_cmake_gets_the_wheel(bare, paths, index):
    old, ninja = script(bare, "cmake", "cmake version 3.20.2"), script(bare, "ninja", "1.12.0")
    index.add_wheel("cmake", "9.9.9", {"cmake/data/bin/cmake": "#!/bin/sh\necho 'cmake version 3.31.0'\n"})
    assert build_tools(paths, pytest.fail, pytest.fail, cmake_least="3.19").cmake == old
    found = build_tools(paths, lambda line: None, lambda line: None, cmake_least="3.21")
    assert str(paths.data) in found.cmake and found.ninja == ninja


def test_a_wheel_of_this_environment_serves(bare, paths, monkeypatch):
    monkeypatch.setattr(tools, "wheel_tool", lambda name, least: Tool(f"/wheel/{name}", "9.9", ""))
    assert build_tools(paths, pytest.fail, pytest.fail).ninja == "/wheel/ninja"


def test_missing_ones_are_fetched_once_and_kept(bare, paths, index, monkeypatch, tmp_path):
    for name, says in (("cmake", "cmake version 4.1.0"), ("ninja", "1.13.0")):
        index.add_wheel(name, "9.9.9", {f"{name}/data/bin/{name}": f"#!/bin/sh\necho '{says}'\n"})
    said: list[str] = []
    found = build_tools(paths, said.append, lambda line: None)
    assert said == ["cmake and ninja not on PATH: taking the wheels"]
    assert str(paths.data) in found.cmake and Path(found.ninja).is_file()
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "gone").as_uri())
    assert build_tools(paths, pytest.fail, pytest.fail) == found


def test_no_wheels_to_be_had_is_told(bare, paths):
    with pytest.raises(SourceUnreachableError, match="cmake"):
        build_tools(paths, lambda line: None, lambda line: None)


def test_a_wheel_that_does_not_run_here_is_told(bare, paths, index):
    for name in ("cmake", "ninja"):
        index.add_wheel(name, "9.9.9", {f"{name}/data/bin/{name}": "#!/bin/sh\nexit 1\n"})
    with pytest.raises(MissingToolError, match="cmake, ninja do not run here"):
        build_tools(paths, lambda line: None, lambda line: None)
