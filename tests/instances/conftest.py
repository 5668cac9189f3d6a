"""A home of its own, the fake llama.cpp tree, and a self-test model whose content is its answer."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Progress
from llamamgr.instances.install import Installed, Wish, install
from llamamgr.instances.store import Store
from llamamgr.instances.verify import SelfTest
from tests.fakes.package_index import FAKE_TREE, PackageIndex

ANSWER = "the right answer"
Install = Callable[..., Installed]


@pytest.fixture
def paths() -> Paths:
    return Paths.of_environment()


@pytest.fixture
def store(paths: Paths) -> Store:
    return Store(paths)


@pytest.fixture
def question(tmp_path: Path) -> SelfTest:
    model = tmp_path / "model.gguf"
    model.write_text(ANSWER)
    return SelfTest(str(model), "?", ANSWER)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the fake llama.cpp, to be changed at will."""
    return Path(shutil.copytree(FAKE_TREE, tmp_path / "tree"))


@pytest.fixture
def events() -> list[Progress]:
    return []


@pytest.fixture
def run_install(paths: Paths, question: SelfTest, tree: Path, events: list[Progress]) -> Install:
    """``install`` of the fake tree; ``cmake`` is what a user would type behind --cmake-args."""

    def run(cmake: str | None = None, **wish: object) -> Installed:
        wish = {"source": Source("directory", str(tree)), "arch": "cpu", **wish}
        arguments = None if cmake is None else tuple(shlex.split(cmake))
        return install(Wish(cmake_args=arguments, **wish), paths, question, events.append)

    return run


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageIndex:
    """An empty package index, and a pip that knows no other."""
    made = PackageIndex(tmp_path / "index")
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    return made
