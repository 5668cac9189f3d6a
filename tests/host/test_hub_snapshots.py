"""Fetching of a hub: a server on loopback that behaves like it; each fetch in a process of its own, which reads HF_ENDPOINT."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import tiny_hf_model
from tests.fakes.hub import COMMIT, Hub

_FETCH = """
import json, sys
from llamamgr.core.errors import LlamamgrError
from llamamgr.host.hub_snapshots import fetch
stages = []
try:
    folder = fetch(sys.argv[1], sys.argv[2], lambda names: [n for n in names if n.endswith(sys.argv[3])], stages.append)
    counts = [(stage.done, stage.total) for stage in stages]
    print(json.dumps({"folder": str(folder), "counts": counts}))
except LlamamgrError as error:
    print(json.dumps({"error": type(error).__name__, "what": error.what, "hint": error.hint}))
"""


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    with Hub({"org/tiny": tiny_hf_model.write(tmp_path / "tiny")}) as running:
        yield running


def fetch(url: str, home: Path, repository: str, revision: str = "", ending: str = "") -> dict[str, object]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")
    }
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, repository, revision, ending],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_chosen_files_come_into_the_shared_cache_and_are_counted(hub, tmp_path):
    found = fetch(hub.url, tmp_path, "org/tiny")
    folder = Path(str(found["folder"]))
    assert folder.name == COMMIT and folder.is_relative_to(tmp_path / "hf" / "hub")
    assert (folder / "model.safetensors").read_bytes() == (
        tmp_path / "tiny" / "model.safetensors"
    ).read_bytes()
    counts = found["counts"]
    total = sum(path.stat().st_size for path in (tmp_path / "tiny").iterdir())
    assert counts[-1] == [total, total] and counts == sorted(counts)


def test_only_what_was_chosen_is_asked_for_and_nothing_twice(hub, tmp_path):
    fetch(hub.url, tmp_path, "org/tiny", "main", "config.json")
    assert not [path for path in hub.asked if "safetensors" in path]
    hub.asked.clear()
    fetch(hub.url, tmp_path, "org/tiny", "main", "config.json")
    assert not [path for path in hub.asked if "/resolve/" in path]


@pytest.mark.parametrize(
    ("repository", "revision", "ending", "error", "tells"),
    [
        ("org/nothing", "", "", "NotFoundError", "there is no repository org/nothing"),
        ("org/tiny", "v9", "", "NotFoundError", "no revision 'v9'"),
        ("org/tiny", "", ".nothing", "NotFoundError", "holds no files of a model"),
        (
            "private/model",
            "",
            "",
            "PermissionDeniedError",
            "there is no repository private/model, or it is private",
        ),
        ("gated/model", "", "", "PermissionDeniedError", "gated"),
        ("org/--", "", "", "NotFoundError", "names no repository"),
    ],
)
def test_each_refusal_of_the_hub_is_told_for_what_it_is(
    hub, tmp_path, repository, revision, ending, error, tells
):
    found = fetch(hub.url, tmp_path, repository, revision, ending)
    assert found["error"] == error and tells in str(found["what"]) and found["hint"]


def test_a_hub_that_does_not_answer_is_an_unreachable_source(tmp_path):
    found = fetch("http://127.0.0.1:1", tmp_path, "org/tiny")
    assert found["error"] == "SourceUnreachableError" and "HF_ENDPOINT" in str(found["hint"])
