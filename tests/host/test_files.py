"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamamgr.core.errors import ConfigError, ConflictError, DiskFullError, PermissionDeniedError
from llamamgr.host.files import disk_full_as_error, locked, read_toml, write_atomic
from llamamgr.host.outputs import scratch_beside
from llamamgr.host.paths import Paths, ensure


def test_a_write_that_fails_leaves_the_former_content_and_no_scratch(tmp_path: Path, monkeypatch):
    target = tmp_path / "f"
    write_atomic(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_of_the_system_pass():
    with pytest.raises(FileNotFoundError), disk_full_as_error(Path("x")):
        raise FileNotFoundError


def test_a_broken_document_names_file_and_line(tmp_path: Path):
    (tmp_path / "c.toml").write_text("a = 1\nb = = 2\n")
    with pytest.raises(ConfigError, match=r"c\.toml.*line 2"):
        read_toml(tmp_path / "c.toml")
    assert read_toml(tmp_path / "none.toml") == {}


def test_a_lock_is_refused_while_another_process_holds_it_and_free_when_that_dies(tmp_path: Path):
    lock = tmp_path / "l"
    code = f"import filelock,sys; held = filelock.FileLock({str(lock)!r}); held.acquire(); print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        holder.stdout.readline()
        with pytest.raises(ConflictError, match="the thing"), locked(lock, "the thing"):
            pass
        holder.kill()
        holder.wait()
    with locked(lock, "the thing", wait=5):
        pass


def test_a_home_too_deep_for_sockets_gets_a_short_runtime_folder(monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOME", "/tmp/" + "deep/" * 30)
    run = Paths.of_environment().run
    assert len(str(run / "c123-1234567.sock")) < 104
    assert run == Paths.of_environment().run


def test_a_private_folder_is_made_private_and_must_be_ours(tmp_path: Path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    assert ensure(folder, private=True).stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionDeniedError):
        ensure(folder, private=True)


def test_targets_whose_names_begin_alike_do_not_share_a_scratch(tmp_path: Path):
    one, other = (tmp_path / f"{'ä' * 120}{letter}.gguf" for letter in "AB")
    with (
        scratch_beside(one, tmp_path / "locks") as first,
        scratch_beside(other, tmp_path / "locks") as second,
    ):
        assert first != second
        assert first.is_dir() and second.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
