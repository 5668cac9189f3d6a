"""bisect over real builds of llama.cpp: a slow-down that was planted in its decoder is found, with the figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import llamamgr
from tests.fakes.llama_repository import commit, git

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

_DECODER = "int llama_context::decode(const llama_batch_ext & batch_inp) {"
_SLEEP = "\n    std::this_thread::sleep_for(std::chrono::milliseconds(25)); // planted\n"


@pytest.fixture
def repository(tmp_path: Path, llama_repository: Path) -> Path:
    """The real history, and four commits more: b11436 makes each decode wait, the others change what is never compiled."""
    if not shutil.which("ccache"):
        pytest.skip("without ccache each of the builds takes as long as a first one")
    folder = tmp_path / "llama.cpp"
    git(tmp_path, "clone", "-q", "--shared", str(llama_repository), str(folder))
    git(folder, "checkout", "-q", "-B", "master", "b11434")
    for number in range(11435, 11439):
        if number == 11436:
            source = folder / "src" / "llama-context.cpp"
            text = source.read_text()
            assert _DECODER in text
            headers = "#include <chrono>\n#include <thread>\n"
            source.write_text(headers + text.replace(_DECODER, _DECODER + _SLEEP))
        (folder / "NOTES").write_text(f"{number}\n")
        commit(folder, f"b{number}", number)
    return folder


def test_a_slow_down_planted_in_real_llama_cpp_is_found_by_its_speed(repository: Path, own_home: Path):
    ends = ("--good", "b11434", "--bad", "b11438", "--repo", str(repository), "--arch", "cpu")
    # the self-test model's speed is noise, and threads that wait for each other make it more so on a busy machine
    words = ("--bench", "tg", "--drop", "90%", "--json", "--", "-r", "2", "-t", "1")
    done = llamamgr("bisect", *ends, *words, timeout=1500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["number"], found["about"]["subject"]) == (11436, "b11436")
    assert found["after"]["outcome"]["figure"]["speed"] < 40
    assert found["before"]["outcome"]["figure"]["speed"] > 400
    assert len(found["suspects"]) == 1 and len(found["tested"]) == 4
    assert not (own_home / "data" / "bisect").exists()
