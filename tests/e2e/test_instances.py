"""The life of real instances: two versions serving at once, an update undone and done again, nothing removed that runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr
from tests.e2e.test_promises import chat

pytestmark = pytest.mark.real


@pytest.fixture
def home(home_with_models: Path, updated_instance: Path) -> Path:
    """``default`` at b11434 from a package, ``old`` from git: installed at b11401, updated to b11434. tinychat runs on ``old``."""
    data = home_with_models / "data"
    shutil.copytree(updated_instance, data / "instances" / "old", symlinks=True)
    (data / "sources").symlink_to(updated_instance.parents[1] / "sources")
    config = home_with_models / "config" / "config.toml"
    config.write_text(config.read_text() + '[models.tinychat]\ninstance = "old"\n')
    return home_with_models


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    running = Daemon(home)
    yield running
    running.stop()


def good(*words: str) -> str:
    done = llamamgr(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def builds(daemon: Daemon) -> dict[str, str]:
    return {child["model"]["name"]: child["build"] for child in daemon.children()}


def ask(daemon: Daemon, model: str) -> str:
    return str(daemon.post("/api/chat", chat(stream=False, model=model))["message"]["content"])


def test_an_update_from_git_was_verified_and_the_numbers_are_upstreams(home: Path):
    shown = good("instance", "show", "old")
    assert "b11434-df848c2-cpu *" in shown and "b11401-854dd9f-cpu" in shown
    assert "update" in shown and "tag b11434  (asked for)" in shown
    told = llamamgr("exec", "old", "llama-server", "--version")
    assert told.returncode == 0 and "11434" in told.stderr + told.stdout


def test_two_versions_serve_at_once_through_one_daemon(daemon: Daemon):
    assert "b11401" in good("rollback", "old")
    assert ask(daemon, "selftest") == selftest.ANSWER
    ask(daemon, "tinychat")
    assert builds(daemon) == {
        "selftest:latest": "default/b11434-pkg-11434.0.0-cpu",
        "tinychat:latest": "old/b11401-854dd9f-cpu",
    }
    refused = llamamgr("uninstall", "old", "--force")
    assert refused.returncode == 5 and "is running (b11401-854dd9f-cpu)" in refused.stderr


def test_a_loaded_model_keeps_its_build_until_it_is_started_again_and_restart_sees_to_that(daemon: Daemon):
    good("rollback", "old")
    ask(daemon, "tinychat")
    told = good("update", "old")
    assert "b11434" in told and "was here already" in told
    assert builds(daemon)["tinychat:latest"] == "old/b11401-854dd9f-cpu"
    assert "0 B freed" in good("prune", "old", "--keep", "0")
    assert "is unloaded" not in good("update", "old", "--tag", "b11434", "--restart")  # nothing has moved
    good("rollback", "old")
    assert "tinychat:latest is unloaded" in good("update", "old", "--restart")
    assert builds(daemon) == {}
    ask(daemon, "tinychat")
    assert builds(daemon)["tinychat:latest"] == "old/b11434-df848c2-cpu"


def test_pinned_it_stays_where_it_was_rolled_back_to(home: Path):
    good("rollback", "old")
    good("pin", "old")
    assert "pinned, stays at b11401" in good("update", "old")
    good("unpin", "old")
    assert "b11434 (df848c2) was here already" in good("update", "old")
    assert "b11434 (df848c2) is what it is fixed to (tag b11434)" in good("update", "old")


def test_the_model_decides_which_instance_a_foreground_server_is_of(home: Path):
    assert "old (chosen by: the model's own setting)" in good("instance", "show", "--model", "tinychat")
    good("rollback", "old")
    for model, number in (("tinychat", "11401"), ("selftest", "11434")):
        told = llamamgr("server", "-m", model, "--", "--version")
        assert number in told.stdout + told.stderr, told.stderr
