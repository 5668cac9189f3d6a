"""One llama-server process: launch, readiness, exit, and the stop sequence.

::

    run() ── spawn ── poll /health ──200──► ready ── watch; wait for exit ── SIGKILL to the group ── reap ──► cause
                          │ exit, or the deadline         │ sick: SIGKILL      ▲
                          └───────────────────────────────┴────────────────────┘
    stop() ── SIGTERM ── 2 s ── SIGTERM ── 2 s ── SIGKILL to the group

The engine's SIGTERM handler can deadlock and a second SIGTERM ends it even then; a stream or an unfinished request holds the
first one up. Exit is always told by the system, never by asking whether a pid exists, and no
signal is sent after the child was reaped (``host.children``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Protocol

from llamamgr.core.last_words import last_words, own_last_words, without_folders
from llamamgr.host.children import ChildProcess, spawn_child
from llamamgr.host.files import discard
from llamamgr.host.ports import is_taken
from llamamgr.plan.progress import Progress
from llamamgr.supervise.launch import Launch
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.logs import LogSink
from llamamgr.supervise.probe import ask
from llamamgr.supervise.watch import Watch

_FIRST_POLL = 0.004
_LONGEST_POLL = 0.1
_PROBE_DEADLINE = 1.0
_TERM_WAIT = 2.0
_PIPE_WAIT = 0.25  # for pipes held open by grandchildren that left the group
_TAIL_LINES = 6
_TOLD_LINES = 4  # of a log, in the cause of an exit
# last lines of a log that can tell why a child could not load, and why one that served died
_LOADING_LINES, _SERVING_LINES = 100, 12
_MOST_PORTS = 4  # that are tried for one child
_UNBOUND = "couldn't bind HTTP server socket"  # the engine's own words

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What the owner of a child does at each step of its life, in the order of a life."""

    def launch(self) -> Launch:
        """How it is started. Asked again when somebody took the child's port between the choosing and the child's bind;
        ``OSError`` is the way to fail.
        """
        ...

    def spawned(self, pid: int) -> None:
        """There is a process."""
        ...

    async def healthy(self) -> None:
        """It answers, and nobody uses it yet."""
        ...

    def ready(self) -> None:
        """It can be used."""
        ...

    def leases(self) -> int:
        """How many requests are on it; only a child that has some is watched."""
        ...

    def stuck(self, told: str) -> None:
        """One of its slots is stuck, for which ``told`` is the reason; said once."""
        ...

    async def before_stop(self) -> None:
        """It is well, and about to be asked to stop."""
        ...

    def stopping(self) -> None:
        """It is asked to stop now, whatever the reason."""
        ...


class Child:
    """A child process with one owner, who is told of its ``steps``; ``run`` must be awaited exactly once.

    ``load_wait`` is the seconds it may take to be ready, ``stall_wait`` those in which a busy one must move. ``OSError`` as
    ``Steps.launch``.
    """

    def __init__(self, child_id: str, steps: Steps, *, load_wait: float, stall_wait: float) -> None:
        self.id = child_id
        self.launch = steps.launch()
        self.pid = 0
        self.cause = ""
        self.progress = Progress()
        self._steps = steps
        self._load_wait = load_wait
        self._stall_wait = stall_wait
        self._is_ready = False
        self._process: ChildProcess | None = None
        self._stop_wanted = asyncio.Event()
        self._log = LogSink(Path(self.launch.log))

    @property
    def endpoint(self) -> Endpoint:
        return self.launch.endpoint

    def stop(self, why: str = "") -> None:
        """Begin the stop sequence; safe before the start, twice and after the end. ``why`` goes into the cause of its exit."""
        self.cause = self.cause or why
        self._stop_wanted.set()

    async def run(self) -> str:
        """The child's whole life; returns why it ended. Being cancelled kills the process group."""
        try:
            self.cause = await self._live()
            for _ in range(_MOST_PORTS - 1):
                if not self._lost_its_port():
                    break
                log.warning("port %d was taken before llama-server could bind it", self.endpoint.port)
                self.launch = self._steps.launch()
                self.cause = ""
                self.cause = await self._live()
        except OSError as error:
            self.cause = f"{self.launch.argv[0]} could not be started: {error.strerror or error}"
        finally:
            if self._process is not None:
                self._process.close()
            self._log.close()
            if self.endpoint.socket:
                discard(Path(self.endpoint.socket))
        return self.cause

    def log_tail(self, lines: int) -> list[str]:
        return self._log.tail(lines)

    # -- life

    async def _live(self) -> str:
        if self._stop_wanted.is_set():
            return "it was stopped before it started"
        process = await spawn_child(self.launch.argv, self.launch.environment)
        self._process, self.pid = process, process.pid
        self._steps.spawned(process.pid)
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(self._drain(process))
            stopper = tasks.create_task(self._stop_when_wanted(process))
            healthy = tasks.create_task(self._become_ready_and_stay_well(process))
            await process.ended()
            stopper.cancel()
            healthy.cancel()
            process.kill_group()  # its pid is still its own: what it left behind goes, and nobody else
            await asyncio.wait([drain], timeout=_PIPE_WAIT)
            drain.cancel()
        return self._describe(process.reap())

    def _lost_its_port(self) -> bool:
        endpoint = self.endpoint
        if endpoint.socket or self._is_ready or self._stop_wanted.is_set():
            return False
        return is_taken(endpoint.host, endpoint.port) or _UNBOUND in "".join(self._log.tail(_TAIL_LINES))

    async def _drain(self, process: ChildProcess) -> None:
        while data := await process.output.read(65536):
            self._log.write(data)

    async def _become_ready_and_stay_well(self, process: ChildProcess) -> None:
        if await self._become_ready(process):
            await self._steps.healthy()
            self._is_ready = True
            self._steps.ready()
            watch = Watch(
                self.endpoint,
                leases=self._steps.leases,
                last_log=lambda: "\n".join(self._log.tail(5)),
                on_stuck=self._steps.stuck,
                stall_wait=self._stall_wait,
                progress=self.progress,
            )
            self.cause = await watch.until_sick()
            process.kill_group()  # who does not answer does not stop when asked
        elif not self.cause:
            self.cause = f"llama-server was not ready after {self._load_wait:g} s"
            self._stop_wanted.set()

    async def _become_ready(self, process: ChildProcess) -> bool:
        """True once it is; False at the end of its time, or at once when somebody halted it: a load would never go on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._load_wait
        pause = _FIRST_POLL
        while loop.time() < deadline:
            if await self._healthy(min(_PROBE_DEADLINE, deadline - loop.time())):
                return True
            if pause == _LONGEST_POLL and process.is_halted():
                self.cause = "llama-server was halted (SIGSTOP) while it loaded"
                process.kill_group()
                return False
            await asyncio.sleep(pause)
            pause = min(_LONGEST_POLL, pause * 1.15)
        return False

    async def _healthy(self, deadline: float) -> bool:
        """200 from /health; over TCP also our own alias behind our key, so that no stranger on the port passes for the child."""
        answer = await ask(self.endpoint, "/health", deadline)
        if answer is None or answer.status != 200:
            return False
        if self.endpoint.socket:
            return True
        models = await ask(self.endpoint, "/v1/models", deadline)
        alias = (
            self.launch.argv[self.launch.argv.index("--alias") + 1] if "--alias" in self.launch.argv else ""
        )
        return models is not None and models.status == 200 and alias.encode() in models.body

    async def _stop_when_wanted(self, process: ChildProcess) -> None:
        await self._stop_wanted.wait()
        if self._is_ready and not self.cause:
            await self._steps.before_stop()
        self._steps.stopping()
        for _ in range(2):
            process.signal(signal.SIGTERM)
            await asyncio.sleep(_TERM_WAIT)
        process.kill_group()

    def _describe(self, code: int) -> str:
        if code < 0:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        else:
            how = f"exited with code {code}"
        if self._is_ready:
            lines = own_last_words(self._log.tail(_SERVING_LINES), _TOLD_LINES)
        else:
            lines = last_words(self._log.tail(_LOADING_LINES), _TOLD_LINES, only_failures=code < 0)
        tail = without_folders(" | ".join(lines))
        parts = [self.cause, f"llama-server {how}"]
        said = "; ".join(part for part in parts if part)
        return f"{said}: {tail}" if tail else said
