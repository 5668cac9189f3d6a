"""Which processes are there: by id, and by the folder that their program lies in; what each says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import psutil

_SCRIPT_WITHIN = 4  # words of a command line: the interpreter, its options, the script
_EXEC_WAIT = 1.0  # seconds within which a process is through its exec, on a crowded machine too
_T = TypeVar("_T")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, of whomever, and more of it than a zombie."""
    import psutil

    try:
        return not _has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def wait_until_ended(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Return once all have ended, or after ``seconds``. Zombies have: in many containers nobody ever reaps them."""
    deadline = time.monotonic() + seconds
    for process in processes:
        while not _has_ended(process) and time.monotonic() < deadline:
            time.sleep(0.001)


def processes_in(folder: Path) -> tuple[int, ...]:
    """Ids of the processes whose program lies below ``folder``, or the script that their program runs.

    Those of other users that we may not look at are not among them.
    """
    import psutil

    root = (f"{folder}/", f"{folder.resolve()}/")
    found = []
    for process in psutil.process_iter():
        try:
            if process.exe().startswith(root) or any(
                word.startswith(root) for word in process.cmdline()[1:_SCRIPT_WITHIN]
            ):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return tuple(found)


def words_of(process: psutil.Process) -> list[str]:
    """The command line of ``process``; none for a zombie. Raises ``psutil.Error``."""
    return _once_it_is_there(process, process.cmdline)


def environment_of(process: psutil.Process) -> dict[str, str]:
    """What ``process`` was started with; nothing for a zombie. Raises ``psutil.Error``."""
    return _once_it_is_there(process, process.environ)


def _has_ended(process: psutil.Process) -> bool:
    """Nothing of it runs or holds memory any more: a process may be a zombie while some of its threads are not yet through."""
    import psutil

    try:
        return not process.is_running() or (
            process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        )
    except psutil.NoSuchProcess:
        return True


def _once_it_is_there(process: psutil.Process, ask: Callable[[], _T]) -> _T:
    """In the midst of an exec, Linux has no words and no environment of a process yet: both read as empty."""
    import psutil

    deadline = time.monotonic() + _EXEC_WAIT
    while not (told := ask()) and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.001)
    return told
