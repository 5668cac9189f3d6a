"""What a killed daemon left is reaped; what merely looks like it is not touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from llamamgr.supervise.orphans import ChildrenFile, Entry, start_time


@pytest.fixture
def sleeper():
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def entry(process: subprocess.Popen[bytes], **changes: object) -> Entry:
    found = Entry("c1", process.pid, start_time(process.pid), sys.executable, "/nowhere.sock", "m")
    return msgspec.structs.replace(found, **changes)


def test_an_orphan_is_killed_and_forgotten(tmp_path: Path, sleeper):
    ChildrenFile(tmp_path / "c.json").add(entry(sleeper))
    assert [e.pid for e in ChildrenFile(tmp_path / "c.json").reap()] == [sleeper.pid]
    assert sleeper.wait(timeout=0) == -signal.SIGKILL  # it had ended when that returned
    assert ChildrenFile(tmp_path / "c.json").reap() == []


@pytest.mark.parametrize("changes", [{"started": 1.0}, {"program": "/usr/bin/other"}])
def test_a_recycled_pid_is_left_alone(tmp_path: Path, sleeper, changes):
    ChildrenFile(tmp_path / "c.json").add(entry(sleeper, **changes))
    assert ChildrenFile(tmp_path / "c.json").reap() == []
    assert sleeper.poll() is None


@pytest.fixture
def bereft(tmp_path: Path):
    """An entry whose process is gone, and what that process had started."""
    script = "sleep 600 & echo $!; kill -KILL $$"
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "ours")}
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        left = psutil.Process(int(leader.stdout.readline()))
        found = entry(leader, config_home=environment["XDG_CONFIG_HOME"])
    yield found, left
    with contextlib.suppress(psutil.NoSuchProcess):
        left.kill()


def test_what_a_dead_child_had_started_is_killed(tmp_path: Path, bereft):
    dead, left = bereft
    ChildrenFile(tmp_path / "c.json").add(dead)
    assert ChildrenFile(tmp_path / "c.json").reap() == [dead]
    deadline = time.monotonic() + 10
    while left.is_running() and left.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it was not killed"
        time.sleep(0.005)


def test_a_session_of_the_same_number_is_left_alone_when_it_is_of_another_home(tmp_path: Path, bereft):
    dead, left = bereft
    ChildrenFile(tmp_path / "c.json").add(msgspec.structs.replace(dead, config_home="/elsewhere"))
    assert ChildrenFile(tmp_path / "c.json").reap() == []
    assert left.is_running()


@pytest.mark.parametrize("content", [b"", b"{", b'[{"pid": "x"}]', b"\xff\xfe"])
def test_a_broken_file_counts_as_empty(tmp_path: Path, content: bytes):
    (tmp_path / "c.json").write_bytes(content)
    assert ChildrenFile(tmp_path / "c.json").reap() == []


def test_the_socket_of_an_orphan_is_removed(tmp_path: Path, sleeper):
    socket = tmp_path / "s.sock"
    socket.touch()
    ChildrenFile(tmp_path / "c.json").add(entry(sleeper, socket=str(socket)))
    ChildrenFile(tmp_path / "c.json").reap()
    assert not socket.exists()
