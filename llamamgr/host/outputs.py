"""Files that take long to write: made in a scratch folder beside their place, shown by rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from llamamgr.core.errors import ConflictError, NotFoundError, PermissionDeniedError
from llamamgr.host.files import disk_full_as_error, locked

_TOLD = 40  # characters of a name: with four bytes each they leave room for the rest


@contextlib.contextmanager
def scratch_beside(target: Path, locks: Path) -> Iterator[Path]:
    """An empty folder on the disk of ``target``, gone at the end. What a killed process left for the same target goes first.

    ``ConflictError`` when another process is writing the same target; ``locks`` is the folder of lock files.
    """
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    with locked(locks / f"output-{digest}.lock", str(target)), disk_full_as_error(target):
        scratch = target.parent / f".{target.name[:_TOLD]}-{digest}.unfinished"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
        except PermissionError:
            raise PermissionDeniedError(
                f"{target.parent} may not be written", "name another place with --output"
            ) from None
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def refuse_existing(target: Path) -> None:
    """``ConflictError`` when ``target`` is there already."""
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists already", "name another with --output, or overwrite it with -f")


def require_folder(folder: Path, output: str, own: Path, option: str = "--output") -> None:
    """``NotFoundError`` when the ``folder`` that ``output`` leads to is not there.

    One that is asked for as such, by a / at the end, is made where the folder above it is there, ``own`` as it is needed.
    """
    if output.endswith("/"):
        folder = folder.parent
    if not folder.is_dir() and folder != own and own not in folder.parents:
        raise NotFoundError(
            f"there is no folder {folder}", f"name another with {option}, or: mkdir -p {folder}"
        )


def reveal(made: Path, target: Path, *, replace: bool) -> Path:
    """Let the finished file ``made`` (same disk) become ``target``; safe on the disk before it is seen."""
    if not replace:
        refuse_existing(target)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(target)
    return target
