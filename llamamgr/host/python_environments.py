"""Python environments: made, filled from the package index that pip is set up for, and asked what they hold.

uv does it in a tenth of the time and is used where it is; it does not read pip's configuration, so
what that says of indexes is handed to it. Every environment gets a pip of its own, which answers what an index offers.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llamamgr.core.errors import DiskFullError, LlamamgrError, MissingToolError, SourceUnreachableError
from llamamgr.host.package_index import pip_command
from llamamgr.host.processes import capture, stream

OnLine = Callable[[str], None]

_PROBE_SECONDS = 10  # for an index to say what it offers
_SETTING = re.compile(r"^(global|install|:env:)\.([\w-]+)=(.*)$", re.MULTILINE)
_RANK = {"global": 0, "install": 1, ":env:": 2}  # as pip: the environment beats the files
_PLACES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
_REACH = ("cert", "client-cert", "proxy", "trusted-host")
_TELLS = re.compile(r"^\s*(?:ERROR: |error: |× |╰─▶ )(.*)", re.MULTILINE)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")

# What of a wheel's requirements applies here, asked of the environment's own Python. Source: pip's vendored packaging.
_APPLICABLE = """
import json, sys
from pip._vendor.packaging.requirements import Requirement
found = [Requirement(text) for text in json.load(open(sys.argv[1]))]
print(json.dumps([r.name for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]))
"""


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``. The programs beside it do not survive a move of the folder; it does."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def uv_program() -> str:
    """uv from PATH, or from its wheel beside this interpreter; "" when there is none."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)) or ""


def create(folder: Path, on_line: OnLine) -> None:
    """A new environment of this interpreter's Python, with pip; ``MissingToolError`` when neither uv nor venv can make one."""
    if uv_program():
        indexes = _uv_indexes()
        argv = [uv_program(), "venv", "--seed", "--python", sys.executable, *indexes, str(folder)]
        if _run(argv, on_line)[0] == 0:
            return
        shutil.rmtree(folder, ignore_errors=True)  # uv found no pip to put in: venv brings its own
    code, said = _run([sys.executable, "-m", "venv", str(folder)], on_line)
    if code:
        raise _failure("a Python environment could not be made", said, MissingToolError, _VENV_HINT)


def install(
    folder: Path, requirements: Sequence[str], on_line: OnLine, *, index: str = "", alone: bool = False
) -> None:
    """Put ``requirements`` into the environment; ``index`` replaces the configured ones, ``alone`` leaves out what they need.

    ``SourceUnreachableError`` with the installer's own reason; ``DiskFullError``.
    """
    with tempfile.TemporaryDirectory(prefix="llamamgr-") as scratch:
        listed = Path(scratch) / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", "utf-8")
        options = ["--no-deps"] if alone else []
        argv = [*_install_command(folder, index), *options, "-r", str(listed)]
        code, said = _run(argv, on_line, index)
    if code:
        wanted = ", ".join(requirements[:3]) + (", …" if len(requirements) > 3 else "")
        raise _failure(
            f"cannot get {wanted}",
            said,
            SourceUnreachableError,
            "`pip config list` shows which index is asked",
        )


def offered(folder: Path, package: str, *, index: str = "") -> tuple[str, ...]:
    """The versions of ``package`` for this Python that ``index`` ("" = the configured ones) offers, newest first; () = none."""
    argv = [*_pip(folder), "index", "versions", package]
    if index and _asks_no_index():
        return ()
    if index:
        argv += ["--index-url", index, "--timeout", str(_PROBE_SECONDS), "--retries", "0"]
    try:
        outcome = capture(argv, timeout=6.0 * _PROBE_SECONDS, env=_environment(index))
    except LlamamgrError:
        return ()
    match = re.search(r"^Available versions: (.*)$", outcome.output, re.MULTILINE)
    return tuple(version.strip() for version in match[1].split(",")) if match else ()


def needs_of(folder: Path, requirement: str) -> tuple[str, ...] | None:
    """The packages that ``requirement`` asks for on this machine, by name, without installing it; None = not to be had."""
    with tempfile.TemporaryDirectory(prefix="llamamgr-") as scratch:
        report, listed = Path(scratch) / "report.json", Path(scratch) / "needs.json"
        argv = [
            *_pip(folder),
            "install",
            "--dry-run",
            "--no-deps",
            "--ignore-installed",
            "--report",
            str(report),
        ]
        try:
            if not capture([*argv, requirement], timeout=600.0, env=_environment()).succeeded:
                return None
            found: dict[str, Any] = json.loads(report.read_text("utf-8"))
            needs = [text for item in found["install"] for text in item["metadata"].get("requires_dist", ())]
            listed.write_text(json.dumps(needs), "utf-8")
            outcome = capture([str(python_of(folder)), "-c", _APPLICABLE, str(listed)], timeout=60.0)
            return tuple(json.loads(outcome.output.splitlines()[-1]))
        except (LlamamgrError, OSError, ValueError, KeyError, IndexError):
            return None


def version_in(folder: Path, package: str) -> str:
    """The installed version of ``package``; "" when it is not there."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    outcome = capture([str(python_of(folder)), "-c", code, package], timeout=60.0)
    return outcome.output.strip() if outcome.succeeded else ""


def _install_command(folder: Path, index: str) -> list[str]:
    if not uv_program():
        options = ["--index-url", index] if index else []
        return [*_pip(folder), "install", *options]
    indexes = ["--index-url", index] if index else _uv_indexes()
    python = str(python_of(folder))
    # without bytecode each later run compiles everything anew, since environments are taken to be read-only
    return [uv_program(), "pip", "install", "--python", python, "--compile-bytecode", *indexes]


def _uv_indexes() -> list[str]:
    """pip's settings in uv's words. Several indexes count as one, as pip has it."""
    options = {
        "index-url": "--index-url",
        "extra-index-url": "--extra-index-url",
        "find-links": "--find-links",
        "trusted-host": "--allow-insecure-host",
    }
    known = dict(_pip_settings())
    words = [
        word
        for key, option in options.items()
        for value in known.get(key, "").split()
        for word in (option, value)
    ]
    if _asks_no_index():
        words.append("--no-index")
    return [*words, "--index-strategy", "unsafe-best-match"] if words else []


def _asks_no_index() -> bool:
    return dict(_pip_settings()).get("no-index", "").lower() in ("1", "true", "yes", "on")


@cache
def _pip_settings() -> tuple[tuple[str, str], ...]:
    try:
        said = capture([*pip_command(), "config", "list"], timeout=60.0).output
    except LlamamgrError:
        return ()
    found = sorted(_SETTING.findall(said), key=lambda row: _RANK[row[0]])
    return tuple((key, value) for _, key, text in found if (value := _literal(text)))


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _run(argv: Sequence[str], on_line: OnLine, index: str = "") -> tuple[int, list[str]]:
    """The exit status and the last lines."""
    said: list[str] = []

    def hear(line: str) -> None:
        said[:] = [*said[-200:], line]
        on_line(line)

    return stream(argv, hear, env=_environment(index)), said


def _pip(folder: Path) -> tuple[str, ...]:
    return (str(python_of(folder)), "-m", "pip", "--disable-pip-version-check", "--no-input")


def _environment(index: str = "") -> dict[str, str]:
    """Ours, without the environment that we may run in; with ``index`` no place of pip's own configuration is asked besides it."""
    settings = dict(_pip_settings())
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    if settings.get("cert"):
        kept.setdefault("SSL_CERT_FILE", settings["cert"])  # uv's word for it
    if settings.get("proxy"):
        kept.setdefault("ALL_PROXY", settings["proxy"])
    if index:
        kept = {key: value for key, value in kept.items() if key not in _PLACES}
        reach = {f"PIP_{key.replace('-', '_').upper()}": settings[key] for key in _REACH if settings.get(key)}
        kept |= {"PIP_CONFIG_FILE": os.devnull, **reach}
    return kept | {"UV_NO_PROGRESS": "1"}


def _failure(what: str, said: Sequence[str], kind: type[LlamamgrError], hint: str) -> LlamamgrError:
    text = "\n".join(said)
    if _FULL.search(text):
        return DiskFullError(f"{what}: no space left on the disk", "free some and run the command again")
    tells = [tell for tell in _TELLS.findall(text) if tell.strip()]
    reason = (tells or [line for line in said if line.strip()] or ["no reason was given"])[-1].strip()
    return kind(f"{what}: {reason}", hint)


_VENV_HINT = "install Python's venv (Debian: sudo apt install python3-venv), or uv"
