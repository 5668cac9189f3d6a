"""An installed instance whose programs are fakes: what a private server finds on this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llamamgr.core.cards import BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.flags import parse_help
from llamamgr.host.files import write_atomic
from llamamgr.host.processes import capture
from llamamgr.instances.card_files import dump
from tests.supervise.conftest import fake_build, fake_help, short_folder, supervisor

__all__ = ("fake_build", "fake_help", "short_folder", "supervisor")  # pytest finds its fixtures here

FAKES = Path(__file__).parent.parent / "fakes"
PROGRAMS = {"llama-server": FAKES / "fake_llama_server.py", "llama-cli": FAKES / "fake_llama_cli.py"}


@pytest.fixture(scope="session")
def fake_flags() -> dict[str, str]:
    return parse_help(capture([sys.executable, str(PROGRAMS["llama-server"]), "--help"], timeout=20).output)


@pytest.fixture(autouse=True)
def only_own_temporary_files(own_temporary_files: None) -> None:
    """Private folders of other programs, a second test run among them, are not seen by a test, and not swept."""


@pytest.fixture
def install_fake(own_home: Path, fake_flags: dict[str, str]) -> Callable[..., Path]:
    """Make the instance ``default`` of this test's home, with the faults and programs given; returns the build's folder."""

    def make(faults: str = "", programs: tuple[str, ...] = ("llama-server",), **changes: object) -> Path:
        instance = own_home / "data" / "instances" / "default"
        root = instance / "builds" / "b1"
        (root / "bin").mkdir(parents=True)
        for name in programs:
            shutil.copy(PROGRAMS[name], root / "bin" / name)
            (root / "bin" / name).chmod(0o755)
        capability = msgspec.structs.replace(Capability("b1", 1, "abc", programs, fake_flags), **changes)
        card = BuildCard(
            "b1",
            "default",
            "cpu",
            1,
            "abc",
            Source("directory"),
            verified=True,
            environment={"FAKE_LLAMA": faults} if faults else {},
            capability=capability,
        )
        write_atomic(root / "build.toml", dump(card))
        write_atomic(instance / "instance.toml", dump(InstanceSpec("default")))
        (instance / "current").symlink_to(Path("builds") / "b1")
        return root

    return make
