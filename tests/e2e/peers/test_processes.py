"""What lives and dies with what: reloads, killed daemons, orphans, strangers on a child's address."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from llamamgr.supervise.orphans import Entry, start_time
from tests.e2e.conftest import Daemon, llamamgr, until
from tests.e2e.peers.clients import DIALECTS, Answer, ask, endless
from tests.e2e.peers.conftest import FAKES, A, B, C, Engine, configure, install


def pids(daemon: Daemon) -> dict[str, int]:
    return {child["model"]["name"].partition(":")[0]: child["pid"] for child in daemon.children()}


def test_a_reload_that_changes_nothing_restarts_nothing_and_cuts_no_stream(serve, engine, record_property):
    daemon = serve(engine)
    ask(daemon, C)
    streams = [endless(daemon, model, tokens=1500) for model in (A, B)]
    before = pids(daemon)
    configure(daemon.home, {}, {}, note="# a comment, and nothing else\n")
    daemon.control.call("POST", "/control/reload", {})
    daemon.process.send_signal(signal.SIGHUP)
    whole = _whole(streams, 1500)
    assert whole == 2
    assert pids(daemon) == before
    record_property("measured", f"0 of {len(before)} children restarted, 0 of 2 streams cut")


def test_a_reload_restarts_only_the_model_it_concerns_once_its_streams_are_over(
    serve, engine, record_property
):
    daemon = serve(engine)
    ask(daemon, C)
    streams = [endless(daemon, model, tokens=1500) for model in (A, B)]
    before = pids(daemon)
    configure(daemon.home, {B: {"parallel": 2}}, {})
    told = daemon.control.call("POST", "/control/reload", {})
    assert told["drained"] == [f"{B}:latest"]
    assert _whole(streams, 1500) == 2
    assert ask(daemon, B).status == 200
    until(lambda: len(daemon.children()) == 3)
    after = pids(daemon)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {B}
    record_property("measured", "1 of 3 children restarted (the one that changed), 0 of 2 streams cut")


def _whole(streams: list[Answer], tokens: int) -> int:
    """How many of the streams came to their end with all they were asked for."""
    for stream in streams:
        stream.rest()
    return sum(stream.clean and stream.last.get("eval_count") == tokens for stream in streams)


def test_a_killed_daemon_leaves_no_engine_and_the_next_one_serves(serve, engine, record_property):
    daemon = serve(engine)
    ask(daemon, B)
    stream = endless(daemon, A)
    left = [psutil.Process(pid) for pid in pids(daemon).values()]
    assert len(left) == 2
    daemon.process.kill()
    killed = time.monotonic()
    until(lambda: not any(_alive(process) for process in left), 1.0)
    took = time.monotonic() - killed
    stream.leave()
    daemon.restart()
    assert ask(daemon, A).status == 200
    record_property(
        "measured", f"both engines gone {took * 1000:.0f} ms after kill -9, the next daemon serves"
    )


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_an_engine_started_is_gone_too_once_the_next_daemon_starts(serve, engine, record_property):
    """The kernel ends the children of a killed daemon, not theirs."""
    daemon = serve(engine, {A: {"env": {"ENGINE_PRELUDE": "sleep 600 &"}}})
    ask(daemon, A)
    [grandchild] = psutil.Process(pids(daemon)[A]).children()
    assert grandchild.cmdline() == ["sleep", "600"]
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        daemon.process.kill()
        daemon.restart()
        until(lambda: not _alive(grandchild), 2.0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    record_property(
        "measured", "1 grandchild survived kill -9 of the daemon; the next start ended it, and nothing else"
    )


def test_an_orphan_is_ended_and_a_process_with_its_recycled_number_is_not(serve, engine, record_property):
    home = Path(os.environ["LLAMAMGR_HOME"])
    arguments = [str(engine.program), "--model", "none.gguf", "--host", str(home / "orphan.sock")]
    # it is held at its start: a pid that runs what was written down
    orphan = subprocess.Popen(["sh", "-c", "kill -STOP $$; true", *arguments], start_new_session=True)
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        until(lambda: psutil.Process(orphan.pid).status() == psutil.STATUS_STOPPED)
        _write_children(home, _entry(orphan.pid, 0.0, arguments[0]), _entry(innocent.pid, -1000.0, "sleep"))
        daemon = serve(engine)
        assert orphan.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
        assert ask(daemon, A).status == 200
    finally:
        for process in (orphan, innocent):
            process.kill()
            process.wait()
    record_property(
        "measured", "the orphan was ended before the first request, its neighbour of another start time lives"
    )


def _entry(pid: int, shift: float, program: str) -> Entry:
    return Entry(f"c{pid}", pid, start_time(pid) + shift, program, "", "left")


def _write_children(home: Path, *entries: Entry) -> None:
    from llamamgr.host.paths import Paths

    file = Paths.of_environment().children_file
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{name: getattr(entry, name) for name in entry.__struct_fields__} for entry in entries]
    file.write_text(json.dumps(rows))


@pytest.mark.parametrize("faults", ["", "wrong-port"])
def test_a_stranger_on_the_port_of_an_engine_is_never_taken_for_it(serve, engine, faults, record_property):
    if faults and engine.name == "real":
        pytest.skip("a real engine binds the port it is given, or ends")
    record = Path(os.environ["LLAMAMGR_HOME"]) / "asked"
    prelude = f'"{sys.executable}" -I "{FAKES / "stranger.py"}" "{record}" "$@"'
    env = {"ENGINE_PRELUDE": prelude, "FAKE_LLAMA": faults}
    daemon = serve(engine, {A: {"env": env}}, {"load_wait": 2.0}, unix_socket=False)
    for path in DIALECTS:
        answer = ask(daemon, A, path)
        assert answer.status >= 500, answer.data
    assert record.read_text() == ""
    assert ask(daemon, B).status == 200
    record_property("measured", "3 requests told an error, 0 of them reached the stranger")


def test_a_stranger_on_the_socket_of_an_engine_is_never_taken_for_it(serve, engine, record_property):
    daemon = serve(engine)
    path = daemon.home / "run" / f"c1-{daemon.process.pid}.sock"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        stranger.setblocking(False)
        assert ask(daemon, A).status == 200
        with pytest.raises(BlockingIOError):
            stranger.accept()
    assert (daemon.home / "run").stat().st_mode & 0o077 == 0
    record_property(
        "measured", "the engine answers at that path, the stranger was asked nothing; the folder is 0700"
    )


def test_output_before_readiness_never_blocks_an_engine(serve, engine, record_property):
    flood = "head -c 8000000 /dev/zero | tr '\\0' x"
    daemon = serve(engine, {A: {"env": {"ENGINE_PRELUDE": flood}}})
    asked = time.monotonic()
    assert ask(daemon, A).status == 200
    took = time.monotonic() - asked
    size = sum(file.stat().st_size for file in (daemon.home / "state" / "logs").iterdir())
    record_property(
        "measured", f"8 MB before the load: answered after {took:.1f} s, {size / 1e6:.1f} MB of it kept"
    )


def test_an_engine_outlives_the_thread_that_asked_for_it(serve, engine, record_property):
    """Children start from the main thread only: the kernel ties their death to the thread that forked them."""
    daemon = serve(engine)
    client = threading.Thread(target=lambda: ask(daemon, A))
    client.start()
    client.join()
    pid = pids(daemon)[A]
    before = {thread.id for thread in psutil.Process(daemon.process.pid).threads()}
    for _ in range(3):
        daemon.control.call("GET", "/api/tags")  # the index is read on worker threads
    assert ask(daemon, A).status == 200
    assert pids(daemon)[A] == pid
    record_property("measured", f"forked by the main thread of {len(before)}")


def test_asking_for_a_daemon_starts_none(own_home, fake_engine: Engine, record_property):
    install(own_home, fake_engine)
    configure(own_home, {}, {})
    codes = [llamamgr(*words).returncode for words in (("ps",), ("daemon", "status"), ("daemon", "reload"))]
    assert codes == [3, 3, 3]
    assert not (own_home / "run" / "control.sock").exists()
    assert not _daemons(own_home)
    record_property("measured", "`ps`, `daemon status`, `daemon reload`: exit code 3, no process")


def _daemons(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LLAMAMGR_HOME") == str(home) and "serve" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_daemon_that_is_restarted_listens_where_it_did_before(serve, fake_engine, record_property):
    """Even where its address was given on a command line that nobody remembers."""
    daemon = serve(fake_engine)
    ask(daemon, A)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(30)
    port = daemon.url.rpartition(":")[2]
    daemon._close()
    daemon._start(f"127.0.0.1:{port}")
    told = llamamgr("daemon", "restart")
    try:
        assert told.returncode == 0, told.stderr
        assert daemon.url in told.stdout
        assert ask(daemon, A).status == 200
    finally:
        llamamgr("daemon", "stop")
    record_property("measured", f"same address after `daemon restart`, {daemon.url.partition('//')[2]}")
