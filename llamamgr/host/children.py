"""Long-lived children of the event loop, whose end is noticed before they are reaped.

A pid, and the id of the group that it leads, belong to a process until its parent has reaped it; afterwards the system may give the
number to a stranger. So the end is learnt without reaping (a pidfd on Linux, ``waitid`` with ``WNOWAIT`` or kqueue elsewhere), what
the process left of its group is killed while the number is still its own, and only then is it reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

import psutil

from llamamgr.host.processes import die_with_parent


class ChildProcess:
    """A process that leads a session of its own. ``output`` is what it writes, stdout and stderr as one."""

    def __init__(
        self, process: subprocess.Popen[bytes], output: asyncio.StreamReader, pipe: asyncio.BaseTransport
    ) -> None:
        self.pid = process.pid
        self.output = output
        self._process = process
        self._pipe = pipe
        self._is_ours = True  # not reaped, so its pid is no stranger's
        self._ended = asyncio.Event()
        self._unwatch = _watch(process.pid, self._ended.set)

    async def ended(self) -> None:
        """Wait until the process has ended; it is not reaped yet."""
        await self._ended.wait()

    def signal(self, sent: int) -> None:
        """To the process alone; nothing once it was reaped."""
        if self._is_ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sent)

    def is_halted(self) -> bool:
        """True while a signal such as SIGSTOP keeps it from going on."""
        with contextlib.suppress(psutil.Error):
            return self._is_ours and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def kill_group(self) -> None:
        """SIGKILL to all that is left of its group, the process included; nothing once it was reaped."""
        if self._is_ours:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """The exit status (negative = signal) of a process that has ended."""
        self._is_ours = False
        return self._process.wait()

    def close(self) -> None:
        """Leave nothing behind, whatever the state: the group is killed, the pipe closed, the process reaped. Safe twice."""
        self.kill_group()
        self._unwatch()
        self._pipe.close()
        self._is_ours = False
        if self._process.poll() is None:
            # a process in the kernel's hands may take its time even to be killed
            threading.Thread(target=self._process.wait, daemon=True, name=f"reaps {self.pid}").start()


async def spawn_child(argv: Sequence[str], environment: Mapping[str, str]) -> ChildProcess:
    """A process in a session of its own that dies with this one; stdin is empty. ``OSError`` when it cannot be started.

    Must run on a thread that lives as long as the child may: the kernel ties the parent-death signal to the thread that forked.
    """
    loop = asyncio.get_running_loop()
    process = subprocess.Popen(  # noqa: ASYNC220 - whoever spawns waits for fork and exec; on a thread the child would die with it
        list(argv),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    assert process.stdout is not None
    output = asyncio.StreamReader()
    try:
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), process.stdout)
    except BaseException:
        process.kill()
        process.stdout.close()
        process.wait()
        raise
    return ChildProcess(process, output, pipe)


def _watch(pid: int, on_end: Callable[[], None]) -> Callable[[], None]:
    """Call ``on_end`` on the running loop once the process has ended; returns what stops watching, safe twice."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or one before 5.3
        return _watch_on_a_thread(pid, on_end)
    watched = [descriptor]

    def stop() -> None:
        while watched:
            loop.remove_reader(watched[0])
            os.close(watched.pop())

    def ended() -> None:
        stop()
        on_end()

    loop.add_reader(descriptor, ended)
    return stop


def _watch_on_a_thread(pid: int, on_end: Callable[[], None]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()
    is_wanted = threading.Event()
    is_wanted.set()

    def watch() -> None:
        _until_ended(pid)
        if is_wanted.is_set():
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(on_end)

    threading.Thread(target=watch, daemon=True, name=f"watches {pid}").start()
    return is_wanted.clear


def _until_ended(pid: int) -> None:
    """Block until the process has ended, without reaping it."""
    with contextlib.suppress(OSError):  # reaped meanwhile: it has ended
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        else:  # macOS before Python 3.13
            queue = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
            ending = select.kevent(  # type: ignore[attr-defined,unused-ignore]
                pid,
                select.KQ_FILTER_PROC,  # type: ignore[attr-defined,unused-ignore]
                select.KQ_EV_ADD,  # type: ignore[attr-defined,unused-ignore]
                select.KQ_NOTE_EXIT,  # type: ignore[attr-defined,unused-ignore]
            )
            with contextlib.closing(queue):
                queue.control([ending], 1)
