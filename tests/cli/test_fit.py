"""``llamamgr fit``: on a real build, and on made-up GPUs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamamgr.cli.fit import fit
from llamamgr.core.cards import Build, BuildCard, Capability, Source
from llamamgr.core.errors import NotFoundError
from llamamgr.daemon import fit as explaining
from tests.fakes import fake_llama_server
from tests.fakes.gpus import GpuFarm

GIB = 1024**3


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamamgr", "fit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_estimate_and_engine_are_told_part_by_part(real_build):
    done = run("selftest", "--context", "512", "--parallel", "2")
    assert done.returncode == 0, done.stderr
    assert f"selftest:latest on {real_build.key}: 2 slots of 512 tokens" in done.stdout
    for word in ("KV cache", "llama-fit-params", "never loaded so", "<- here"):
        assert word in done.stdout


def test_a_context_beyond_what_the_model_was_trained_for_is_told(real_build, own_home):
    assert "of the 99999999 tokens asked for, it was trained for" in run("selftest", "-c", "99999999").stdout
    (own_home / "config").mkdir(exist_ok=True)
    (own_home / "config" / "config.toml").write_text("[models.selftest]\ncontext = 10000000\n")
    assert "of the 10000000 tokens asked for, it was trained for" in run("selftest").stdout


def test_the_same_for_programs(real_build):
    found = json.loads(run("selftest", "--context", "4096", "--parallel", "8", "--json").stdout)
    assert (found["context"], found["parallel"]) == (4096, 8)
    assert found["engine"]["host"] > found["parts"]["cache"] > 0
    assert found["place"]["need"]["host"] < found["budget"]["host"]


@pytest.fixture
def gpu_build(tmp_path: Path, farm: GpuFarm, monkeypatch) -> Build:
    """The fake, on two made-up GPUs of which another program holds one."""
    farm.add(8 * GIB)
    farm.add(8 * GIB)
    farm.hold(0, 999_999, 7 * GIB)
    fake_llama_server.install(tmp_path / "build" / "bin")
    devices = ("CUDA0: Made-up GPU (8192 MiB, 1024 MiB free)", "CUDA1: Made-up GPU (8192 MiB, 8192 MiB free)")
    capability = Capability("b1", 1, "abc", ("llama-server",), {}, devices)
    card = BuildCard("b1", "default", "cuda", 1, "abc", Source("directory"), capability=capability)
    build = Build(card, str(tmp_path / "build"))
    monkeypatch.setattr(explaining, "CurrentBuilds", lambda paths, preferred: lambda instance: build)
    return build


def test_gpus_are_told_with_what_others_hold_and_the_place_is_marked(gpu_build, capsys):
    fit("selftest", context=512, parallel=1, instance="", as_json=False)
    told = capsys.readouterr().out
    assert "CUDA0          537 MB of 8.6 GB, 7.5 GB in use by others" in told
    assert re.search(r"1    CUDA1 \d+ MB, main memory \d+ MB  <- here\n", told)
    assert "this build has none" in told


def test_an_unknown_model_is_not_found(real_build):
    with pytest.raises(NotFoundError):
        fit("nothing", context=0, parallel=0, instance="", as_json=False)
