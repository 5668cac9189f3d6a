"""Which build is current, looked at as rarely as can be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llamamgr.daemon.builds import CurrentBuilds
from llamamgr.host.paths import Paths
from tests.fakes.clock import Clock


@pytest.fixture
def builds(install_fake: Callable[..., Path], clock: Clock) -> CurrentBuilds:
    install_fake()
    return CurrentBuilds(Paths.of_environment(), "default", clock=clock)


def switch(home: Path) -> None:
    """Let ``current`` point at a second build, as a command does it."""
    new = home / "data" / "instances" / "default" / "new"
    new.symlink_to(Path("builds") / "b2")
    new.replace(new.with_name("current"))


def test_what_was_never_looked_up_is_not_recalled(builds: CurrentBuilds) -> None:
    assert builds.recall() is None
    assert builds().card.id == "b1"
    assert builds.recall("other") is None


def test_the_link_is_read_once_in_ten_milliseconds(
    builds: CurrentBuilds, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = builds()
    read = []
    really = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: read.append(path) or really(path))
    for _ in range(100):
        clock.now += 0.001
        assert builds.recall() is build
    assert len(read) == 10


def test_a_switch_is_seen_at_the_next_look(builds: CurrentBuilds, clock: Clock, own_home: Path) -> None:
    build = builds()
    switch(own_home)
    clock.now += 0.009
    assert builds.recall() is build
    clock.now += 0.002
    assert builds.recall() is None
