"""A folder for one process and the time it lives: 0700, short enough for sockets, gone with its owner.

An owner that is killed cannot clean up, so the next one does: every folder is locked by its owner for as long as that lives
(the system frees the lock whatever happens), and one that can be locked by another is abandoned.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llamamgr.core.errors import ConflictError
from llamamgr.host.files import locked

_PREFIX = "llamamgr-private-"
_LONGEST = 70  # bytes of the parent's path that leave room for this folder's name and a socket's
_SETTLING = 30.0  # seconds after which a folder without a lock is abandoned and not just being made


@contextlib.contextmanager
def private_folder(on_abandoned: Callable[[Path], None] = lambda folder: None) -> Iterator[Path]:
    """A new folder, removed at the end. Abandoned ones of this user are removed first, after ``on_abandoned`` saw them.

    Enter and leave on the same thread: the lock belongs to it.
    """
    parent = _parent()
    for folder in parent.glob(f"{_PREFIX}*"):
        _sweep(folder, on_abandoned)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) <= _LONGEST else "/tmp")  # noqa: S108 - mkdtemp makes it 0700 and unguessable


def _held(folder: Path) -> contextlib.AbstractContextManager[None]:
    return locked(folder / "owner.lock", str(folder))


def _sweep(folder: Path, on_abandoned: Callable[[Path], None]) -> None:
    # another user's, one gone meanwhile, or one whose owner lives
    with contextlib.suppress(OSError, ConflictError):
        info = folder.lstat()
        if info.st_uid != os.getuid() or time.time() - info.st_mtime < _SETTLING:
            return
        with _held(folder):
            on_abandoned(folder)
            shutil.rmtree(folder, ignore_errors=True)
