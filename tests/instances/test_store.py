"""The store: published by rename, listed tolerantly, changed by one at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamamgr.core.cards import Build, BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.errors import ConflictError, InvalidNameError, MissingToolError, NotFoundError
from llamamgr.instances.store import Store, Workshop

ROOT = Path(__file__).parents[2]
SOURCE = Source("git", "https://example.com/x", "b1")


def publish(store: Store, name: str, build_id: str, **card: object) -> Build:
    with store.changing(name) as workshop:
        return publish_in(workshop, build_id, **card)


def publish_in(
    workshop: Workshop,
    build_id: str,
    *,
    created: float = 1.0,
    verified: bool = True,
    source: Source = SOURCE,
) -> Build:
    made = workshop.scratch / "made"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "llama-server").write_text(build_id)
    flags = {"-m": "--model", "--model": "--model"}
    capability = Capability("version: 1 (x)", 1, "x", ("llama-server",), flags)
    card = BuildCard(
        build_id,
        workshop.name,
        "cpu",
        1,
        "x",
        source,
        created=created,
        verified=verified,
        capability=capability,
    )
    return workshop.publish(InstanceSpec(workshop.name, source=source, created=created), card, made)


def test_what_was_published_is_read_back_whole(store):
    made = publish(store, "default", "b1")
    assert store.current("default") == made == store.build("default", "b1")
    assert store.instance("default").spec == InstanceSpec("default", source=SOURCE, created=1.0)
    assert Path(made.tool("llama-server")).read_text() == "b1"


@pytest.mark.parametrize(("login", "mode"), [("token:secret@", 0o600), ("", 0o644)])
def test_cards_with_a_login_in_an_address_are_for_their_owner_alone(store, login, mode):
    with store.changing("default") as workshop:
        source = Source("git", f"https://{login}example.com/x", "b1")
        build = publish_in(workshop, "b1", source=source)
    for card in (Path(build.root) / "build.toml", Path(build.root).parents[1] / "instance.toml"):
        assert card.stat().st_mode & 0o777 == mode
    assert store.instance("default").spec.source == source


def test_an_empty_store_is_no_fault(store):
    assert store.instances() == ((), ())
    with pytest.raises(MissingToolError) as caught:
        store.choose()
    assert caught.value.hint == "run `llamamgr install`"


def test_builds_come_newest_first_and_the_last_verified_one_is_current(store):
    for n in (1, 3, 2):
        publish(store, "default", f"b{n}", created=n)
    assert [build.card.id for build in store.builds("default")] == ["b3", "b2", "b1"]
    assert store.current("default").card.id == "b2"


def test_an_unverified_build_is_kept_but_never_current_and_replaces_only_its_like(store):
    publish(store, "default", "b1", created=1)
    for n in (2, 3):
        publish(store, "default", f"b{n}", created=n, verified=False)
    assert store.current("default").card.id == "b1"
    assert [build.card.id for build in store.builds("default")] == ["b3", "b1"]


def test_a_first_build_that_is_not_verified_can_be_looked_into_but_not_run(store):
    publish(store, "default", "b1", verified=False)
    assert store.build("default", "b1").card.verified is False
    with pytest.raises(MissingToolError, match="no working build") as caught:
        store.current("default")
    assert caught.value.hint == "run `llamamgr install --instance default`"


def test_strangers_are_warned_about_and_hide_nothing(store):
    publish(store, "good", "b1")
    publish(store, "bad-spec", "b1")
    (store.root / "bad-spec" / "instance.toml").write_text("name = [")
    publish(store, "renamed", "b1")
    (store.root / "renamed").rename(store.root / "other")
    (store.root / "good" / "builds" / "b0").mkdir()
    (store.root / "good" / "builds" / "b2").mkdir()
    (store.root / "good" / "builds" / "b2" / "build.toml").write_text("id = 5")
    (store.root / "notes.txt").write_text("mine")
    (store.root / "Not A Name" / "builds").mkdir(parents=True)
    found, warnings = store.instances()
    assert [instance.spec.name for instance in found] == ["good"]
    assert [build.card.id for build in found[0].builds] == ["b1"]
    told = [warning.removeprefix(str(store.root)) for warning in warnings]
    for named in ("bad-spec", "other", "b0", "b2", "notes.txt", "Not A Name"):
        assert sum(named in warning for warning in told) == 1, (named, told)


def test_an_install_at_work_shows_nowhere(store):
    with store.changing("new") as workshop:
        workshop.log("b1").write_text("…")
        assert store.instances() == ((), ())
    assert store.instances() == ((), ())


def test_choosing_takes_the_named_then_the_preferred_then_the_only_one(store):
    publish(store, "only", "b1")
    assert store.choose().card.instance == "only"
    publish(store, "second", "b1")
    with pytest.raises(NotFoundError, match="default") as caught:
        store.choose()
    assert "only, second" in caught.value.hint
    assert store.choose("", "second").card.instance == store.choose("second").card.instance == "second"
    publish(store, "default", "b1")
    assert store.choose().card.instance == "default"
    with pytest.raises(NotFoundError, match="third"):
        store.choose("third")


def test_what_is_not_there_is_answered_with_what_is(store):
    publish(store, "default", "b1")
    with pytest.raises(NotFoundError) as caught:
        store.instance("other")
    assert caught.value.hint == "there are: default"
    with pytest.raises(NotFoundError) as caught:
        store.build("default", "b9")
    assert "b1" in caught.value.hint
    with pytest.raises(InvalidNameError):
        store.instance("../../etc")


_HOLDER = """
import os, sys
from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store
with Store(Paths.of_environment()).changing("default") as workshop:
    (workshop.scratch / "half").write_text("made")
    print("held", flush=True)
    sys.stdin.readline()
    os._exit(9)  # no `finally` runs, as with kill -9
"""


def test_two_at_once_is_a_conflict_and_a_dead_one_is_cleaned_up_after(store):
    publish(store, "default", "b1")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match="instance 'default'"), store.changing("default"):
            pass
        with store.changing("another"):
            pass
        assert store.current("default").card.id == "b1"
        other.communicate("go\n")
    assert other.returncode == 9
    assert len(list((store.root / "default").glob(".scratch-*"))) == 1
    with store.changing("default") as workshop:
        assert list(workshop.scratch.iterdir()) == []
    assert not list((store.root / "default").glob(".scratch-*"))


def test_the_scratch_folder_goes_with_any_error_and_an_instance_that_never_was_leaves_nothing(store):
    with pytest.raises(KeyboardInterrupt), store.changing("new") as workshop:
        (workshop.scratch / "x").write_text("x")
        raise KeyboardInterrupt
    assert not (store.root / "new").exists()


def test_a_published_id_is_never_used_twice(store):
    for expected in ("b1", "b1.2", "b1.3"):
        with store.changing("default") as workshop:
            fresh = workshop.fresh_id("b1")
            assert fresh == expected
            publish_in(workshop, fresh)


def test_only_the_newest_logs_are_kept(store):
    with store.changing("default") as workshop:
        for n in range(14):
            log = workshop.log(f"b{n}")
            log.write_text("…")
            os.utime(log, (n, n))
        assert sorted(path.name for path in log.parent.iterdir()) == sorted(f"b{n}.log" for n in range(4, 14))


def test_an_interrupted_first_install_leaves_nothing_and_a_failed_one_its_log(store):
    for fault in (KeyboardInterrupt, OSError):
        with pytest.raises(fault), store.changing("new") as workshop:
            workshop.log("b1").write_text("at it")
            raise fault
        assert (store.root / "new").exists() == (fault is OSError)
    assert store.embryos() == ("new",)
    with pytest.raises(NotFoundError) as failed:
        store.instance("new")
    assert "came to nothing" in failed.value.hint


def test_a_first_install_that_is_at_work_is_not_told_as_one_that_failed(store):
    with store.changing("new"), pytest.raises(NotFoundError) as failed:
        store.instance("new")
    assert "under way" in failed.value.hint
