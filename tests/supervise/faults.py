"""Faults that a fake engine and a real one are put to in the same way."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamamgr.core.cards import Build
from llamamgr.core.errors import EngineError
from llamamgr.supervise.probe import ask
from tests.supervise.conftest import model
from tests.supervise.test_supervisor import until


def full_disk(descriptor: int, data: bytes) -> int:
    """In place of ``os.write``."""
    raise OSError(28, "No space left on device")


async def leave_a_stale_socket(supervisor, build: Build, folder: Path) -> tuple[bool, int]:
    """A socket file of a process that is gone lies where the child's shall be: whether it is the child's then, and its health."""
    async with supervisor(build) as owner:
        stale = folder / "run" / f"c1-{os.getpid()}.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(stale))
        async with owner.acquire(model()) as lease:
            health = await ask(lease.endpoint, "/health", 5)
            return lease.endpoint.socket == str(stale), health.status


async def remove_the_build(supervisor, build: Build) -> tuple[int, str]:
    """The files of ``build`` are deleted while a child of it runs: its health then, and what the next start is told."""
    async with supervisor(build) as owner:
        async with owner.acquire(model()) as lease:
            shutil.rmtree(build.root)
            health = await ask(lease.endpoint, "/health", 5)
        await owner.unload(model())
        await until(lambda: owner.status() == ())
        with pytest.raises(EngineError) as caught:
            async with owner.acquire(model()):
                pass
    return health.status, caught.value.what


async def turn_the_clock(supervisor, build: Build, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The wall clock jumps a year ahead, and back: whether an idle child was still there after each."""
    stayed = []
    real: Callable[[], float] = time.time
    async with supervisor(build) as owner:
        async with owner.acquire(model(), keep_alive=60.0):
            pass
        for jump in (86400 * 365, -86400 * 365):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            async with owner.acquire(model("other")):
                pass
            stayed.append("tiny:latest" in {child.model.name for child in owner.status()})
    return stayed
