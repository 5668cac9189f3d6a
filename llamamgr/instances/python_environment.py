"""The Python environment that a build's conversion scripts run in: one for each set of requirements, shared by all builds.

::

    <data>/python/<key>/                   the environment; <key> = hash of its requirements and of the Python version
    <data>/python/<key>/environment.toml   what it was made of; written last, and the folder appears by rename

llama.cpp's requirement files cannot be installed as they are: where the index that they add for a CPU torch cannot be reached, pip
takes 1.5 GB of GPU packages without a word, and uv fails. So they are read, gguf is left out (the
build carries its own), and torch is chosen here: as pinned, else the nearest for the CPU, never one that brings GPU packages.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.errors import MissingToolError, SourceUnreachableError
from llamamgr.core.stages import Stage, Tell
from llamamgr.host import python_environments as host
from llamamgr.host.files import locked, read_toml, write_atomic
from llamamgr.host.paths import Paths
from llamamgr.host.processes import capture

CONVERT, CONVERT_LORA = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"

_CARD = "environment.toml"
_WAIT = 1800.0  # seconds for another process that is making the same one
_FILES = (
    "requirements/requirements-convert_hf_to_gguf.txt",
    "requirements/requirements-convert_lora_to_gguf.txt",
    "requirements.txt",  # trees before 2024 had only this one
)
_INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]+(\S+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url)[\s=]+(\S+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_GPU = re.compile(r"(?:nvidia|cuda|triton|pytorch-triton|rocm)\b", re.IGNORECASE)
_FREE_OF_GPU = ("Darwin", "Windows")  # where the torch of the public index is a CPU (or Metal) build

Log = Callable[[str], None]


class Requirements(msgspec.Struct, frozen=True):
    """What the scripts need: ``torch`` and ``others`` as requirement lines, ``indexes`` where the tree says torch is to be had."""

    torch: tuple[str, ...]
    others: tuple[str, ...]
    indexes: tuple[str, ...]

    @property
    def key(self) -> str:
        """The same for the same requirements, Python version and machine type."""
        what = [*self.torch, *self.others, *self.indexes, platform.machine(), platform.system()]
        text = "\n".join([f"{sys.version_info.major}.{sys.version_info.minor}", *what])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Card(msgspec.Struct, frozen=True):
    """The content of ``environment.toml``."""

    key: str
    python: str
    torch: str
    requirements: tuple[str, ...]
    seconds: float
    created: float


def read_requirements(share: Path) -> Requirements:
    """What the conversion scripts in ``share`` need; ``MissingToolError`` when there is no list."""
    root = share.resolve()
    found = [share / name for name in _FILES if (share / name).is_file()]
    if not found:
        raise MissingToolError(
            f"{share} holds no requirements of its conversion scripts",
            "build one from source that has them: `llamamgr install --with-python`",
        )
    files = found[:-1] if len(found) > 1 and found[-1].name == "requirements.txt" else found
    seen: set[Path] = set()
    lines = list(dict.fromkeys(line for file in files for line in _lines(file, root, seen)))
    indexes = tuple(match[1] for line in lines if (match := _INDEX.match(line)) and "nightly" not in match[1])
    packages = [line for line in lines if not line.startswith("-") and _name(line) != "gguf"]
    return Requirements(
        torch=tuple(line for line in packages if _name(line) == "torch"),
        others=tuple(line for line in packages if _name(line) != "torch"),
        indexes=indexes,
    )


def present(paths: Paths, share: Path) -> Path | None:
    """The interpreter for the scripts in ``share`` when its environment is there already."""
    folder = paths.data / "python" / read_requirements(share).key
    return host.python_of(folder) if _is_whole(folder) else None


def ensure(paths: Paths, share: Path, tell: Tell) -> Path:
    """The interpreter for the scripts in ``share``; its environment is made when it is missing (one process at a time).

    Raises ``SourceUnreachableError`` (no index gives what is needed), ``MissingToolError``, ``DiskFullError``.
    """
    wanted = read_requirements(share)
    root = paths.data / "python"
    folder = root / wanted.key
    if _is_whole(folder):
        return host.python_of(folder)
    lock = paths.data / "locks" / f"python-{wanted.key}.lock"
    with locked(lock, f"the Python environment {wanted.key}", wait=_WAIT):
        if _is_whole(folder):
            return host.python_of(folder)
        for left in root.glob(f".scratch-{wanted.key}*"):
            shutil.rmtree(left, ignore_errors=True)
        scratch = root / f".scratch-{wanted.key}-{os.getpid()}"
        root.mkdir(parents=True, exist_ok=True)
        log_file = paths.state / "logs" / f"python-{wanted.key}.log"
        try:
            _make(scratch, wanted, share, tell, log_file)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return host.python_of(folder)


def _make(scratch: Path, wanted: Requirements, share: Path, tell: Tell, log_file: Path) -> None:
    began = time.monotonic()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w", encoding="utf-8") as file:

        def log(line: str) -> None:
            file.write(line + "\n")

        tell(Stage("making a Python environment for conversions (once, about 1 GB)"))
        host.create(scratch, log)
        torch = _install_torch(scratch, wanted, tell, log) if wanted.torch else ""
        tell(Stage("installing what the conversion scripts need"))
        pins = [f"torch=={torch}"] if torch else []
        host.install(scratch, [*wanted.others, *pins], log)
        _try_out(scratch, share, log)
    card = Card(
        key=wanted.key,
        python=platform.python_version(),
        torch=torch,
        requirements=(*wanted.torch, *wanted.others),
        seconds=round(time.monotonic() - began, 1),
        created=time.time(),
    )
    _write_card(scratch, card)


def _install_torch(folder: Path, wanted: Requirements, tell: Tell, log: Log) -> str:
    """Install a torch that runs on the CPU and return its version; ``SourceUnreachableError`` when none can be had."""
    tell(Stage("getting torch for the CPU"))
    tried: list[str] = []
    for lines, index, note in _torch_choices(folder, wanted):
        try:
            host.install(folder, lines, log, index=index, alone=True)
        except SourceUnreachableError as error:
            tried.append(error.what)
            log(error.what)
            continue
        version = host.version_in(folder, "torch")
        if note:
            tell(Stage(note=f"{note}: taking torch {version}"))
        return version
    told = f" ({tried[-1].splitlines()[0]})" if tried else ""
    raise SourceUnreachableError(
        f"no torch for the CPU can be had: {_hosts(wanted.indexes)} gives none, nor does the package index of pip{told}",
        "put its wheel (name: torch-…+cpu-….whl) into a folder, and let pip look there: PIP_FIND_LINKS=FOLDER",
    )


def _torch_choices(folder: Path, wanted: Requirements) -> Iterator[tuple[Sequence[str], str, str]]:
    """What to try, best first: requirement lines, the index to take them from ("" = pip's own), and what to say of it."""
    for index in wanted.indexes:
        if host.offered(folder, "torch", index=index):
            yield wanted.torch, index, ""
    pinned = wanted.torch[0]
    note = f"{pinned} for the CPU cannot be had from {_hosts(wanted.indexes)}" if wanted.indexes else ""
    versions = host.offered(folder, "torch")
    for version in nearest([v for v in versions if v.endswith("+cpu")], pinned):
        yield [f"torch=={version}"], "", note
    plain = [v for v in versions if "+" not in v]
    for version in nearest(plain, pinned)[:2]:
        requirement = f"torch=={version}"
        if platform.system() in _FREE_OF_GPU or _is_free_of_gpu(host.needs_of(folder, requirement)):
            yield [requirement], "", note


def nearest(versions: Sequence[str], pinned: str) -> list[str]:
    """``versions`` in the order in which they may stand for ``pinned``: itself, newer ones upwards, older ones downwards."""
    target = _numbers(pinned)
    newer = sorted((v for v in versions if _numbers(v) >= target), key=_numbers)
    older = sorted((v for v in versions if _numbers(v) < target), key=_numbers, reverse=True)
    return newer + older


def _is_free_of_gpu(needs: Sequence[str] | None) -> bool:
    return needs is not None and not any(_GPU.match(name) for name in needs)


def _try_out(folder: Path, share: Path, log: Log) -> None:
    """The script must at least come up: that imports everything."""
    outcome = capture([str(host.python_of(folder)), str(share / CONVERT), "--help"], timeout=300.0)
    log(outcome.output)
    if not outcome.succeeded:
        last = next(
            (line for line in reversed(outcome.output.splitlines()) if line.strip()), "it said nothing"
        )
        raise MissingToolError(
            f"{CONVERT} does not run in its new environment: {last}",
            "install a newer llama.cpp: llamamgr install",
        )


def _is_whole(folder: Path) -> bool:
    return (folder / _CARD).is_file() and host.python_of(folder).exists()


def _write_card(folder: Path, card: Card) -> None:
    import tomli_w

    data: dict[str, Any] = msgspec.to_builtins(card)
    write_atomic(folder / _CARD, tomli_w.dumps(data))


def read_card(python: Path) -> Card:
    """The card of the environment of the interpreter ``python``."""
    return msgspec.convert(read_toml(python.parent.parent / _CARD), Card)


def _lines(file: Path, root: Path, seen: set[Path]) -> Iterator[str]:
    """The requirement and option lines of ``file``, with those of the files that it includes; nothing outside ``root`` is read."""
    path = file.resolve()
    if path in seen or not path.is_relative_to(root) or not path.is_file():
        return
    seen.add(path)
    for raw in path.read_text("utf-8", "replace").splitlines():
        line = re.sub(r"(?:^|\s)#.*", "", raw).strip()
        if include := _INCLUDE.match(line):
            yield from _lines(path.parent / include[1], root, seen)
        elif line:
            yield line


def _name(line: str) -> str:
    match = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _numbers(text: str) -> tuple[int, ...]:
    """The first dotted number in ``torch~=2.6.0`` or ``2.13.0+cpu``."""
    match = _NUMBERS.search(text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _hosts(indexes: Sequence[str]) -> str:
    from urllib.parse import urlsplit

    return (
        ", ".join(dict.fromkeys(urlsplit(index).netloc or index for index in indexes))
        or "no index of its own"
    )
