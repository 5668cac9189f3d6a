"""What benchmarks run on: a home of their own with the user's build or the tests', and a daemon in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llamamgr.core.cards import Build
from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store
from llamamgr.models import selftest
from tests.conftest import _cache, _key


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A new home whose instance is the user's own build, or the one the tests keep."""
    users = Paths.of_environment().instances
    kept = _cache() / _key() / "data" / "instances"
    source = next(
        (folder / "default" for folder in (users, kept) if (folder / "default" / "current").exists()), None
    )
    if source is None:
        sys.exit("error: no instance to measure\nhint: run `llamamgr install`, or scripts/test once")
    folder = Path(tempfile.mkdtemp(prefix="lmb-"))
    (folder / "data" / "instances").mkdir(parents=True)
    (folder / "data" / "instances" / "default").symlink_to(source)
    os.environ["LLAMAMGR_HOME"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def daemon() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "llamamgr", "serve", "--host", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def build() -> Build:
    return Store(Paths.of_environment()).choose()


def model_file() -> Path:
    return selftest.ensure(Paths.of_environment().cache)
