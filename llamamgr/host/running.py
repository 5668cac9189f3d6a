"""Which processes are there: by id, and by the folder that their program lies in, whoever started them."""

from __future__ import annotations

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether there is such a process, of whomever."""
    import psutil

    return psutil.pid_exists(pid)


def processes_in(folder: Path) -> tuple[int, ...]:
    """Ids of the processes whose program lies below ``folder``; those of other users that we may not look at are not among them."""
    import psutil

    root = str(folder.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            program = process.exe()
        except (psutil.Error, OSError):
            continue
        if program.startswith(f"{root}/"):
            found.append(process.pid)
    return tuple(found)
