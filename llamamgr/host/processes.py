"""Processes: a clean environment for engines, children that die with us, commands run to their end.

Every command is an argv list, reads no input, and leads a process group of its own, so that leaving early (Ctrl-C, an error, a
deadline) takes the whole group along.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from llamamgr.core.errors import DeadlineError, MissingToolError, PermissionDeniedError
from llamamgr.host.environments import laid_over

# What llama.cpp's tools read from the environment as if it were typed on their command line.
_ENGINE_PREFIXES = ("LLAMA_ARG_", "LLAMA_SERVER_", "AIP_")
_ENGINE_NAMES = frozenset({"LLAMA_API_KEY", "LLAMA_APP_CMD"})

_PR_SET_PDEATHSIG = 1
_GRACE = 5.0  # seconds: ninja ends its compilers by itself on SIGTERM, which SIGKILL would leave behind


def scrubbed_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything an engine takes for options, and then ``extra`` laid over it.

    CUDA numbers its devices by PCI address in it, as everybody else does, unless somebody has chosen. ``${NAME}`` in a value of
    ``extra`` is what the environment has (``environments.laid_over``).
    """
    kept = {
        k: v for k, v in os.environ.items() if k not in _ENGINE_NAMES and not k.startswith(_ENGINE_PREFIXES)
    }
    kept.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return laid_over(kept, extra or {})


def die_with_parent(sent: int = signal.SIGKILL) -> Callable[[], None] | None:
    """A ``preexec_fn`` (note the call: ``preexec_fn=die_with_parent()``) by which Linux sends ``sent`` to the child when we die.

    Spawn from the main thread only: the kernel watches the *thread* that forked. Grandchildren are not covered, nor anything off
    Linux, where this is None. Libraries are loaded here, before the fork.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, sent, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the kernel was told to watch it
            os._exit(1)

    return arm


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended: ``code`` is its exit status (negative = signal), ``output`` its stdout and stderr as they came."""

    code: int
    output: str

    @property
    def succeeded(self) -> bool:
        return self.code == 0


def capture(
    argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Outcome:
    """Run ``argv`` to its end; ``MissingToolError`` when there is no such program, ``DeadlineError`` after ``timeout`` s."""
    with spawned(argv, env=env, cwd=cwd) as process:
        try:
            raw, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DeadlineError(
                f"`{argv[0]}` did not end within {timeout:g} s", "run it by hand to see what it waits for"
            ) from None
    return Outcome(process.returncode, raw.decode("utf-8", "replace"))


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Run ``argv`` and hand each line of its output to ``on_line`` as it comes; the exit status (negative = signal)."""
    with spawned(argv, env=env, cwd=cwd) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            on_line(raw.decode("utf-8", "replace").rstrip("\r\n"))
        return process.wait()


def stream_text(
    argv: Sequence[str],
    on_text: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """As ``stream``, but in pieces of any length as they come: for tools that say what they do before the line ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with spawned(argv, env=env, cwd=cwd) as process:
        assert process.stdout is not None
        while raw := os.read(process.stdout.fileno(), 65536):
            on_text(decoder.decode(raw))
        return process.wait()


@contextlib.contextmanager
def spawned(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: int | IO[bytes] = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """``argv`` running in a group of its own, stdout and stderr joined; the group is ended and reaped on the way out."""
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    except FileNotFoundError:
        raise MissingToolError(
            f"there is no program `{argv[0]}`", "install it, or run `llamamgr doctor`"
        ) from None
    except PermissionError:
        raise PermissionDeniedError(
            f"`{argv[0]}` may not be executed", f"check its mode: ls -l {argv[0]}"
        ) from None
    try:
        yield process
    finally:
        end_group(process)
        if process.stdout is not None:
            process.stdout.close()


def end_group(process: subprocess.Popen[bytes], grace: float = _GRACE) -> None:
    """End ``process`` and its group: SIGTERM, ``grace`` seconds, SIGKILL; reaped on return. Ended already: nothing is sent.

    A second Ctrl-C cuts the grace short, never the killing.
    """
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()


def _signal_group(leader: int, sent: int) -> None:
    # The leader has not been reaped, so its id still names this group and no other.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, sent)


def wait_until(true: Callable[[], bool], *, timeout: float, interval: float = 0.02) -> bool:
    """Ask ``true`` every ``interval`` s until it says so; False when ``timeout`` s have passed."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


class TerminatedError(KeyboardInterrupt):
    """As Ctrl-C, but told by SIGTERM or SIGHUP: nothing may go on after it, not even a session."""


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that ``finally`` runs; outside the main thread nothing changes."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: object) -> None:
        raise TerminatedError

    former = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
