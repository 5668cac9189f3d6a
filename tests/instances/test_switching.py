"""Going back, falling back, pinning: one rename, and the reason is written down."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llamamgr.core.errors import ConflictError, NotFoundError
from llamamgr.instances import switching
from llamamgr.instances.ledger import FILE
from llamamgr.instances.store import Store
from tests.instances.test_store import publish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def three(store: Store) -> Store:
    for number in (1, 2, 3):
        publish(store, "default", f"b{number}", created=number)
    return store


def current(store: Store) -> str:
    return store.instance("default").current


def test_the_former_build_is_the_one_that_was_current_before(three):
    former = three.former("default")
    assert former is not None and former.card.id == "b2"
    switching.rollback(three, "default")
    assert current(three) == "b2"
    switching.rollback(three, "default")
    assert current(three) == "b1" and three.former("default") is None
    with pytest.raises(NotFoundError, match="no former build") as caught:
        switching.rollback(three, "default")
    assert "b3, b2" in caught.value.hint


def test_a_build_may_be_named_by_id_number_or_commit_and_going_forward_is_going_back_too(three):
    assert switching.rollback(three, "default", "b1").card.id == "b1"
    assert switching.rollback(three, "default", "b3").card.id == "b3"
    events = three.instance("default").ledger.events
    assert [event.why for event in events[-2:]] == ["rollback", "use"]
    with pytest.raises(ConflictError, match="current build"):
        switching.rollback(three, "default", "b3")
    with pytest.raises(NotFoundError, match="no build 'b9'") as caught:
        switching.rollback(three, "default", "b9")
    assert "b3, b2, b1" in caught.value.hint


def test_a_build_that_was_removed_is_passed_over(three):
    subprocess.run(["rm", "-r", three.build("default", "b2").root], check=True)
    former = three.former("default")
    assert former is not None and former.card.id == "b1"


def test_a_build_that_failed_its_verification_is_never_gone_back_to(three):
    publish(three, "default", "bad", created=4, verified=False)
    with pytest.raises(ConflictError, match="failed its verification"):
        switching.rollback(three, "default", "bad")
    with pytest.raises(ConflictError):
        switching.switch(three, "default", "bad")
    assert current(three) == "b3"


def test_falling_back_marks_the_bad_build_and_names_the_good_one(three):
    good = switching.fall_back(three, "default", "b3", "crashed 3 times in 60 s")
    assert good is not None and good.card.id == current(three) == "b2"
    instance = three.instance("default")
    mark, event = instance.ledger.mark("b3"), instance.ledger.arrival("b2")
    assert mark is not None and mark.reason == "crashed 3 times in 60 s"
    assert event is not None and event.why == "fallback" and "b3: crashed" in event.reason
    again = switching.fall_back(three, "default", "b2", "crashed too")
    assert again is not None and again.card.id == "b1"
    assert switching.fall_back(three, "default", "b1", "and this") is None  # nowhere to go
    assert current(three) == "b1" and three.instance("default").ledger.mark("b1") is not None


def test_falling_back_from_what_is_not_current_any_more_only_marks(three):
    switching.rollback(three, "default")
    assert switching.fall_back(three, "default", "b3", "crashed") is None
    assert current(three) == "b2" and three.instance("default").ledger.mark("b3") is not None


def test_who_asks_for_a_bad_build_by_name_gets_it_and_the_mark_is_gone(three):
    switching.fall_back(three, "default", "b3", "crashed")
    switching.rollback(three, "default", "b3")
    assert current(three) == "b3" and three.instance("default").ledger.mark("b3") is None


def test_an_instance_without_history_falls_back_to_its_older_verified_build(three):
    Path(three.instance("default").root, FILE).unlink()
    former = three.former("default")
    assert former is not None and former.card.id == "b2"
    good = switching.fall_back(three, "default", "b3", "crashed")
    assert good is not None and good.card.id == "b2"


def test_going_back_does_not_wait_for_a_build_that_is_under_way(three):
    with three.changing("default"):
        assert switching.rollback(three, "default").card.id == "b2"


def test_one_switch_at_a_time_and_none_is_lost(three):
    def go(number: int) -> None:
        for _ in range(5):
            switching.switch(three, "default", f"b{number}")

    threads = [threading.Thread(target=go, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    instance = three.instance("default")
    assert instance.ledger.events[-1].build == instance.current


def test_a_process_killed_in_mid_switch_leaves_a_current_build_and_no_rubbish_for_long(three):
    code = (
        "import os, signal, sys\n"
        "from llamamgr.host.paths import Paths\n"
        "from llamamgr.instances import store, switching\n"
        "die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.write_ledger = die\n"
        "switching.rollback(store.Store(Paths.of_environment()), 'default')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert killed.returncode == -9
    assert current(three) == "b2"  # the link says so, though history does not
    former = three.former("default")
    assert former is not None and former.card.id == "b1"
    folder = Path(three.instance("default").root)
    (folder / ".current-1").symlink_to("nowhere")
    switching.rollback(three, "default")
    assert current(three) == "b1" and not list(folder.glob(".current-*"))


def test_pinning_is_remembered_and_holds_for_a_build_that_began_before(three):
    former = current(three)
    with three.changing("default") as workshop:
        assert switching.set_pinned(three, "default", True)
        assert not switching.set_pinned(three, "default", True)
        from tests.instances.test_store import publish_in

        with pytest.raises(ConflictError, match="was pinned meanwhile and stays at its build") as caught:
            publish_in(workshop, "b4", created=4)
    assert "`llamamgr rollback default b4`" in caught.value.hint
    assert three.instance("default").spec.pinned and current(three) == former
    switching.rollback(three, "default", "b4")
    assert current(three) == "b4"


@pytest.mark.parametrize("move", ["rollback", "switch", "fall_back", "set_pinned"])
def test_an_instance_that_is_not_there_is_said_so(store, move):
    arguments = {"rollback": (), "switch": ("x",), "fall_back": ("x", "y"), "set_pinned": (True,)}[move]
    with pytest.raises(NotFoundError, match="there is no instance 'nope'"):
        getattr(switching, move)(store, "nope", *arguments)
