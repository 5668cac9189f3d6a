"""kill -9 after each step of an install: the former build serves on, and the next run finishes as if nothing had been."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.host.paths import Paths
from llamamgr.instances.install import install
from llamamgr.instances.sources import mirror_of
from llamamgr.instances.store import Store
from llamamgr.instances.verify import SelfTest
from llamamgr.instances.wishes import Wish
from tests.fakes.llama_repository import git, tagged_repository
from tests.fakes.package_index import FAKE_TREE
from tests.instances.conftest import ANSWER

ROOT = Path(__file__).parents[2]
STEPS = (
    "locked",
    "begin source",
    "found",
    "source",
    "begin configure",
    "begin build",
    "begin install",
    "built",
    "begin verify",
    "verified",
    "card",
    "published",
    "wish",
    "current",
    "history",
)
SWITCHED = STEPS.index("current")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Instances with build b101 current, and its repository, which has b102 by now."""
    folder = tmp_path_factory.mktemp("prepared")
    repository = tagged_repository(folder / "origin", {"b101": {"n": "1"}}, FAKE_TREE)
    (folder / "model").write_text(ANSWER)
    paths = Paths(*(folder / "home" / name for name in ("data", "config", "cache", "state", "run")))
    wish = Wish(arch="cpu", source=Source("git", f"file://{repository}"))
    install(wish, paths, SelfTest(str(folder / "model"), "?", ANSWER), lambda progress: None)
    (repository / "n").write_text("2")
    git(repository, "commit", "-qam", "b102")
    git(repository, "tag", "b102")
    return folder


@pytest.fixture
def killed_after(prepared, own_home):
    """A new home with the prepared instances, and an update in it that is killed after a step; its output and status."""
    shutil.copytree(prepared / "home" / "data", own_home / "data", symlinks=True)

    def run(step: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "tests.instances.killed_install",
            step,
            str(prepared / "model"),
            ANSWER,
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)

    return run


def numbers(store: Store) -> list[int]:
    return sorted(build.card.number for build in store.builds("default"))


def test_these_are_all_the_steps_there_are(killed_after):
    done = killed_after("none")
    assert done.returncode == 0, done.stderr
    assert tuple(dict.fromkeys(done.stdout.splitlines())) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_a_step_nothing_is_broken_and_the_next_run_finishes(
    step, killed_after, store, paths, prepared
):
    done = killed_after(step)
    assert done.returncode == -9, (done.stdout, done.stderr)
    found, warnings = store.instances()
    assert warnings == () and len(found) == 1
    current = store.current("default")
    assert current.card.number == (102 if STEPS.index(step) >= SWITCHED else 101)
    subprocess.run([current.tool("llama-server"), "--version"], check=True, capture_output=True)

    again = killed_after("none")
    assert again.returncode == 0, again.stderr
    assert store.current("default").card.number == 102 and numbers(store) == [101, 102]
    former = store.former("default")
    assert former is not None and former.card.number == 101
    folder = Path(store.instance("default").root)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    mirror = mirror_of(f"file://{prepared / 'origin'}", paths)
    assert [path for path in mirror.parent.iterdir() if ".partial-" in path.name] == []
    assert (
        len(git(mirror, "worktree", "list").splitlines()) <= 2
    )  # itself, and the one that was removed just now
