"""An update that cannot break you: a build that crashes after it was switched to gives way to the former one by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamgr.core.cards import Build
from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store
from llamamgr.instances.switching import switch
from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr
from tests.e2e.test_promises import chat

pytestmark = pytest.mark.real
# passes for the real one until it serves a moment, then dies as from a wild pointer
CRASHING = """#!/bin/sh
here=$(dirname "$0")
case "$*" in *--model*) ;; *) exec "$here/llama-server-real" "$@";; esac
"$here/llama-server-real" "$@" &
child=$!
trap 'kill $child; wait $child; exit 0' TERM
sleep 1.2 & wait $!
kill -SEGV $child
wait $child
kill -SEGV $$
"""


@pytest.fixture
def daemon(home_with_models: Path, real_build: Build) -> Iterator[Daemon]:
    """The instance ``default`` with its real build as the former, and a copy that crashes as the current one."""
    instances = home_with_models / "data" / "instances"
    kept = Path(real_build.root).resolve().parent.parent
    (instances / "default").unlink()
    shutil.copytree(kept, instances / "default", symlinks=True)
    bad = instances / "default" / "builds" / "b99999-bad-cpu"
    shutil.copytree(Path(real_build.root).resolve(), bad, symlinks=True)
    card = (bad / "build.toml").read_text().replace(f'id = "{real_build.card.id}"', f'id = "{bad.name}"')
    (bad / "build.toml").write_text(card)
    (bad / "bin" / "llama-server").rename(bad / "bin" / "llama-server-real")
    (bad / "bin" / "llama-server").write_text(CRASHING)
    (bad / "bin" / "llama-server").chmod(0o755)
    switch(Store(Paths.of_environment()), "default", bad.name, "a test", "update")
    running = Daemon(home_with_models)
    yield running
    running.stop()


def test_a_build_that_keeps_crashing_after_an_update_is_taken_back_and_said(daemon: Daemon):
    used = set()
    for _ in range(12):
        answer = daemon.post("/api/chat", chat(stream=False))
        assert answer["message"]["content"] == selftest.ANSWER
        used |= {child["build"].partition("/")[2] for child in daemon.children()}
        if any("b99999" not in build for build in used):
            break
        daemon.wait_for_crash()
    assert len(used) == 2, (used, daemon.log.read_text())
    [instance] = json.loads(llamamgr("instances", "--json").stdout)["instances"]
    assert instance["current"] != "b99999-bad-cpu"
    shown = llamamgr("instance", "show", "default").stdout
    assert "b99999-bad-cpu" in shown
    assert "SIGSEGV" in shown
    assert "is back on" in daemon.log.read_text()
    assert (
        f"\nnote: instance default fell back to {instance['current']} from b99999-bad-cpu: "
        in llamamgr("ps").stdout
    )
    (note,) = json.loads(llamamgr("ps", "--json").stdout)["notes"]
    assert note.startswith("instance default fell back to ")
