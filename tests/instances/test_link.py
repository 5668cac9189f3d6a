"""llama.cpp of somebody else: used where it lies, tested, and tested again when it was replaced."""

import os
import shutil
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import (
    ConflictError,
    MissingToolError,
    NotFoundError,
    UsageError,
    VerifyFailedError,
)
from llamamgr.instances import ladder, switching
from llamamgr.instances.install import install
from llamamgr.instances.ladder import engine
from llamamgr.instances.link import link, refreshed
from llamamgr.instances.sources import Aim
from llamamgr.instances.store import Store
from llamamgr.instances.updating import pull, update
from llamamgr.instances.wishes import Wish


@pytest.fixture
def foreign(run_install, store, tmp_path) -> Path:
    """The bin folder of a build that was moved away; its instance is gone."""
    built = Path(run_install(instance="made").build.root)
    moved = tmp_path / "opt"
    shutil.move(built, moved)
    shutil.rmtree(store.root / "made")
    return moved / "bin"


@pytest.fixture
def run_link(paths, question, events):
    return lambda name, where: link(name, str(where), paths, question, events.append)


def replace(server: Path, other: Path) -> None:
    """As a package manager does: a new file takes the name."""
    fresh = server.with_name(".new")
    shutil.copy(other, fresh)
    os.utime(fresh, (1, 1))
    fresh.replace(server)


@pytest.mark.parametrize("spelling", ["folder", "above", "program", "PATH"])
def test_every_way_to_name_it_leads_to_the_same_server(foreign, run_link, spelling, monkeypatch, store):
    monkeypatch.setenv("PATH", f"{foreign}:{os.environ['PATH']}")
    where = {
        "folder": foreign,
        "above": foreign.parent,
        "program": foreign / "llama-server",
        "PATH": "llama-server",
    }
    made = run_link("ext", where[spelling])
    assert made.card.source == Source("linked", str(foreign / "llama-server"))
    assert made.card.verified and made.card.capability is not None and store.current("ext") == made
    assert made.card.capability.tools == ("llama-quantize", "llama-server")
    assert Path(made.tool("llama-server")).resolve() == foreign / "llama-server"
    assert [event.why for event in store.instance("ext").ledger.events] == ["link"]


def test_nothing_there_is_said_and_makes_nothing(run_link, store, tmp_path):
    for where in (tmp_path, tmp_path / "nowhere", "no-such-llama-server"):
        with pytest.raises(NotFoundError):
            run_link("ext", where)
    assert store.instances() == ((), ())


def test_one_that_answers_wrongly_is_not_taken(foreign, run_link, store, run_install):
    wrong = Path(run_install("-DFAKE_ANSWER=x", verify=False).build.root) / "bin" / "llama-server"
    shutil.copy(wrong, foreign / "llama-server")
    with pytest.raises(VerifyFailedError, match="computes wrongly"):
        run_link("ext", foreign)
    assert [instance.spec.name for instance in store.instances()[0]] == ["default"]


def test_an_instance_that_is_built_is_not_turned_into_a_linked_one(foreign, run_link, run_install):
    run_install()
    with pytest.raises(ConflictError, match="llamamgr builds"):
        run_link("default", foreign)


def test_replaced_by_its_owner_it_is_tested_again_as_a_new_build(foreign, run_link, store, paths, question):
    first = run_link("ext", foreign)
    assert refreshed(first, store, paths, question) == first
    replace(foreign / "llama-server", foreign / "llama-server")
    second = refreshed(first, store, paths, question)
    assert second.card.fingerprint != first.card.fingerprint and store.current("ext") == second
    assert [build.card.id for build in store.builds("ext")] == [second.card.id]  # the other is no more
    assert update(Wish(instance="ext"), paths, question, lambda progress: None).outcome == "newest"


def test_replaced_by_something_that_answers_wrongly_it_is_refused(
    foreign, run_link, store, paths, question, run_install
):
    first = run_link("ext", foreign)
    wrong = Path(run_install("-DFAKE_ANSWER=x", verify=False).build.root) / "bin" / "llama-server"
    replace(foreign / "llama-server", wrong)
    with pytest.raises(VerifyFailedError, match="computes wrongly"):
        refreshed(first, store, paths, question)


def test_gone_it_is_said_with_what_to_do(foreign, run_link, store, paths, question):
    first = run_link("ext", foreign)
    shutil.rmtree(foreign)
    with pytest.raises(MissingToolError, match="is gone") as caught:
        refreshed(first, store, paths, question)
    assert "llamamgr link ext" in caught.value.hint


def test_the_ladder_takes_an_instance_before_anything_on_path(
    foreign, run_install, store, paths, monkeypatch
):
    made = run_install().build
    monkeypatch.setenv("PATH", f"{foreign}:{os.environ['PATH']}")
    assert engine(store, paths, lambda: pytest.fail("nothing to test")) == made


def test_without_an_instance_a_server_on_path_is_used_tested_once_and_said(
    foreign, store, paths, question, monkeypatch
):
    monkeypatch.setenv("PATH", f"{foreign}:{os.environ['PATH']}")
    said: list[str] = []
    first = engine(store, paths, lambda: question, say=said.append)
    assert first.card.source.kind == "linked" and str(foreign) in said[0] and store.instances() == ((), ())
    again = engine(store, paths, lambda: question, say=said.append)
    assert again == first  # from the cache, same card, same folder
    replace(foreign / "llama-server", foreign / "llama-server")
    assert engine(store, paths, lambda: question).root != first.root
    assert refreshed(first, store, paths, question).root != first.root
    with pytest.raises(NotFoundError):
        engine(store, paths, lambda: question, name="named")  # who names an instance means that one


def test_with_nothing_at_all_the_ways_are_named(store: Store, paths, question, monkeypatch, tmp_path):
    brew = tmp_path / "brew"
    brew.write_text("#!/bin/sh\n")
    brew.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"no llama\.cpp is installed") as caught:
        engine(store, paths, lambda: question)
    assert "llamamgr install" in caught.value.hint and "brew install llama.cpp" in caught.value.hint


@pytest.mark.parametrize(
    ("program", "asked", "command"),
    [
        ("brew", "info llama.cpp", "brew install llama.cpp"),
        ("apt-get", "show llama.cpp", "sudo apt install llama.cpp"),
        ("dnf", "--quiet --cacheonly info llama-cpp", "sudo dnf install llama-cpp"),
        ("pacman", "-Si llama-cpp", "sudo pacman -S llama-cpp"),
        (
            "zypper",
            "--non-interactive --no-refresh search --match-exact llamacpp",
            "sudo zypper install llamacpp",
        ),
    ],
)
def test_each_package_manager_is_asked_before_its_package_is_offered(
    program, asked, command, monkeypatch, tmp_path
):
    for name in {program, "apt-cache" if program == "apt-get" else program}:
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ]\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ladder.offer()
    assert found is not None and found.text == command
    for path in tmp_path.iterdir():
        if path.is_file():
            path.write_text("#!/bin/sh\nexit 1\n")
    assert ladder.offer() is None


def test_what_is_for_builds_is_refused_where_somebody_else_has_built(
    foreign, run_link, paths, question, store
):
    run_link("ext", foreign)
    for more, option in (
        ({"reinstall": True}, "--reinstall"),
        ({"cmake_args": ("-DX=1",)}, "--cmake-args"),
        ({"arch": "cpu"}, "--arch"),
    ):
        with pytest.raises(
            UsageError, match=f"{option} is for builds, and instance 'ext' is linked to"
        ) as caught:
            install(Wish("ext", **more), paths, question, print)
        assert "--source git" in caught.value.hint
    for wish in (Wish("ext", aim=Aim("tag", "b1")), Wish("ext", aim=Aim("version", "b99999"), fresh=True)):
        with pytest.raises(UsageError, match="a source of kind 'linked' has no"):
            update(wish, paths, question, print)
    with pytest.raises(UsageError, match="have no source to fetch"):
        pull(Wish("ext"), paths, print)
    assert install(Wish("ext"), paths, question, print).build == store.current("ext")
    assert len(store.builds("ext")) == 1


def test_one_that_was_replaced_is_told_so_also_where_it_is_pinned(foreign, run_link, paths, question, store):
    made = run_link("ext", foreign)
    server = foreign / "llama-server"
    replace(server, server)
    assert update(Wish("ext"), paths, question, print).outcome == "relinked"
    assert switching.set_pinned(store, "ext", True)
    os.utime(server, (5, 5))
    now = refreshed(store.current("ext"), store, paths, question)
    assert now.card.created > made.card.created
    assert store.instance("ext").spec.pinned
