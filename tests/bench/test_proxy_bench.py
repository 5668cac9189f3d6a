"""The comparison of proxies runs, whatever its figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import stand_ins
from tests.bench.fast_upstream import Answers
from tests.conftest import ROOT

ROWS = [
    "direct",
    "llamamgr `/v1`",
    "llamamgr Ollama",
    "llamamgr Anthropic",
    "bare aiohttp",
    "llama-swap",
    "Ollama",
]


@pytest.mark.skipif(sys.platform == "win32", reason="UNIX sockets")
def test_the_comparison_prints_a_row_for_each_and_a_verdict_for_each_promise(tmp_path: Path) -> None:
    llama_swap, ollama = stand_ins.install(tmp_path)
    options = ["--tiny", "--llama-swap", str(llama_swap), "--ollama", str(ollama)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "proxy", *options],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    tables = [[cell.strip() for cell in line[1:-1]] for line in lines]
    rows = {cells[0]: cells for cells in tables if len(cells) == 12}
    assert list(rows)[2:] == ROWS
    for name in ROWS:
        rates = [cell.replace(",", "") for cell in rows[name][1:7]]
        assert all(float(rate) > 0 for rate in rates), rows[name]
    assert all(float(cell) > 0 for cell in rows["llamamgr `/v1`"][9:])
    verdicts = [cells[3] for cells in tables if len(cells) == 4][2:]
    assert len(verdicts) == 10
    assert set(verdicts) <= {"held", "MISSED"}


def test_the_fast_upstream_tells_as_many_chunks_as_were_asked_for() -> None:
    answers = Answers("m")
    for tokens in (0, 1, 5000):
        said = answers.first(progress=False) + b"".join(answers.rest(tokens))
        assert said.count(b'" llama"') == tokens
        assert said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
