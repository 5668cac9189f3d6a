"""A folder that goes with its owner, and the folders of owners that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llamamgr.host.private_folder import private_folder


@pytest.fixture
def parent(own_home, monkeypatch) -> Path:
    """The folder of temporary files, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(own_home))
    return own_home


def abandoned(parent: Path) -> Path:
    """A folder whose owner was killed some time ago."""
    script = (
        "import os, tempfile; tempfile.tempdir = os.environ['LLAMAMGR_HOME']\n"
        "from llamamgr.host.private_folder import private_folder\n"
        "with private_folder() as folder: print(folder, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    folder = Path(done.stdout.strip())
    os.utime(folder, (0, 0))
    return folder


def test_it_is_private_and_gone_at_the_end(parent):
    with private_folder() as folder:
        assert folder.parent == parent
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "x").write_text("x")
    assert not folder.exists()


def test_it_is_gone_after_an_error_too(parent):
    with pytest.raises(ValueError, match="mine"), private_folder() as folder:
        raise ValueError("mine")
    assert not folder.exists()


def test_its_path_leaves_room_for_a_socket_wherever_temporary_files_lie(monkeypatch, own_home):
    deep = own_home / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with private_folder() as folder:
        assert len(os.fsencode(folder)) < 80


def test_an_abandoned_folder_is_shown_and_removed(parent):
    left = abandoned(parent)
    seen = []
    with private_folder(lambda folder: seen.append((folder, folder.exists()))):
        assert seen == [(left, True)]
        assert not left.exists()


def test_a_folder_whose_owner_lives_and_one_just_made_are_left_alone(parent):
    with private_folder() as held:
        os.utime(held, (0, 0))
        fresh = abandoned(parent)
        os.utime(fresh)
        with private_folder(lambda folder: pytest.fail(f"{folder} is in use")):
            assert held.exists()
            assert fresh.exists()
