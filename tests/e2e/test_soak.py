"""Three models in the room of two, eight clients, a fault every two seconds: every request ends exactly once, nothing leaks.

``SOAK_SECONDS`` in the environment of the test run is its length in seconds; a shortened form runs every time, and
``scripts/bench soak`` the long one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Daemon, until
from tests.e2e.peers.clients import ask
from tests.e2e.soaking import SAYS, Clients, Faults, Watcher, write_configuration
from tests.fakes import fake_llama_server, wrapped

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
pytestmark = [pytest.mark.real, pytest.mark.timeout(SECONDS + 300)]
CLIENTS = 8
LONG = SECONDS >= 600  # on a machine that has nothing else to do
LAG = 20.0 if LONG else 250.0  # ms, p99; a short run shares its cores with other tests, and waits its turn
GROWTH = 1.0 if LONG else 60.0  # MB a minute; a short run is still filling its caches


@pytest.fixture
def crowded(home_with_models: Path) -> Iterator[Daemon]:
    """Two models on a real engine and one on the fake, which is at times odd; room for two of the three."""
    models = home_with_models / "gguf"
    (models / "odd.gguf").write_bytes((models / "tinychat.gguf").read_bytes() + bytes(64))
    program = fake_llama_server.install(home_with_models / "fake")
    wrapped.publish(program, wrapped.fake_engine(), home_with_models, "odd")
    write_configuration(home_with_models)
    daemon = Daemon(home_with_models)
    yield daemon
    daemon.stop()


async def test_every_request_ends_exactly_once_and_nothing_leaks(crowded: Daemon):
    process = psutil.Process(crowded.process.pid)
    for model in SAYS:
        ask(crowded, model)
    settled = process.num_fds()
    chance = random.Random(7)
    clients, faults, watcher = Clients(crowded, chance), Faults(crowded, chance), Watcher(crowded)
    end = asyncio.get_running_loop().time() + SECONDS
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watcher.run(end))
        tasks.create_task(faults.run(end))
        for _ in range(CLIENTS):
            tasks.create_task(clients.run(end))
    until(lambda: all(child["busy"] == 0 and child["queued"] == 0 for child in crowded.children()), 30)
    report(clients, faults, watcher)

    assert clients.begun == clients.endings.total()
    ends = Counter(how for _, how in clients.endings.elements())
    assert ends["answer"] > ends["told"]
    assert crowded.process.poll() is None
    until(lambda: {p.pid for p in process.children(recursive=True)} <= pids(crowded), 20)
    assert len(list((crowded.home / "run").glob("c[0-9]*.sock"))) <= len(crowded.children())
    until(lambda: process.num_fds() <= settled + 4, 15)
    assert watcher.growth < GROWTH
    assert watcher.lag < LAG + watcher.noise
    for model, said in SAYS.items():
        if model != "odd":
            assert said in ask(crowded, model).data.decode()


def pids(daemon: Daemon) -> set[int]:
    return {child["pid"] for child in daemon.children()}


def report(clients: Clients, faults: Faults, watcher: Watcher) -> None:
    print(
        f"\n\nsoak of {SECONDS:.0f} s, {CLIENTS} clients, {clients.begun} requests, slowest {clients.slowest:.1f} s\n"
    )
    print("| dialect | answered | told an error | client left |\n|---|---|---|---|")
    for path in sorted({path for path, _ in clients.endings}):
        cells = [str(clients.endings[path, how]) for how in ("answer", "told", "left")]
        print(f"| {path} | {' | '.join(cells)} |")
    print(
        f"\nstatuses: {', '.join(f'{status}: {count}' for status, count in sorted(clients.statuses.items()))}"
    )
    print("\n| fault | times |\n|---|---|")
    for kind in faults.kinds:
        print(f"| {kind} | {faults.done[kind]} |")
    print("\n| at | resident | descriptors | processes | loop late, p99 |\n|---|---|---|---|---|")
    step = max(1, len(watcher.samples) // 12)
    for row in watcher.samples[::step]:
        cells = [
            f"{row.at:.0f} s",
            f"{row.memory:.1f} MB",
            str(row.descriptors),
            str(row.processes),
            f"{row.lag:.1f} ms",
        ]
        print(f"| {' | '.join(cells)} |")
    print(
        f"\nloop lag p99 at most {watcher.lag:.1f} ms (allowed: {LAG + watcher.noise:.1f} ms, of which "
        f"{watcher.noise:.1f} ms a process that only sleeps is late here)\n"
        f"memory grew by {watcher.growth:+.2f} MB a minute over the second half"
    )
