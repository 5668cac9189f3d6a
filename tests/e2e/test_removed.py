"""Models that are removed while they are loaded, over the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, llamamgr, until

pytestmark = pytest.mark.real


def loaded() -> list[str]:
    children = json.loads(llamamgr("ps", "--json").stdout)["children"]
    return [child["model"]["name"] for child in children if child["state"] != "stopping"]


def test_rm_takes_the_engine_of_its_name_along_though_the_weights_are_another_models(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text("FROM tinychat\nSYSTEM S\n")
    assert llamamgr("create", "foo", "-f", str(tmp_path / "Modelfile")).returncode == 0
    assert llamamgr("run", "foo", "hi").returncode == 0
    assert loaded() == ["foo:latest"]
    assert llamamgr("rm", "foo").stdout == "foo:latest is removed\n"
    until(lambda: loaded() == [])


def test_an_engine_can_be_stopped_by_the_name_that_ps_shows_whatever_became_of_its_model(
    daemon: Daemon,
) -> None:
    assert llamamgr("cp", "tinychat", "bar").returncode == 0
    assert llamamgr("run", "bar", "hi").returncode == 0
    manifests = daemon.home / "data" / "models" / "manifests"
    (manifest,) = [path for path in manifests.rglob("*") if path.is_file()]
    manifest.unlink()
    until(lambda: "bar" not in llamamgr("list").stdout)
    assert loaded() == ["bar:latest"]
    stopped = llamamgr("stop", "bar")
    assert (stopped.returncode, "is unloaded" in stopped.stdout) == (0, True)
    until(lambda: loaded() == [])
    assert "stopping bar:latest: somebody wants it gone" in daemon.log.read_text()
