"""A made-up machine in place of this one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.arch.machines import TOOLKIT_VARIABLES, FakeMachine, fake_machine

Make = Callable[..., FakeMachine]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``make()`` is a bare machine, ``make("cuda")`` one with all that this arch asks for."""

    def made(arch: str = "", system: str = "Linux", package_manager: str = "apt") -> FakeMachine:
        root = tmp_path / "root"
        machine = fake_machine(arch, root) if arch else FakeMachine(root, system, package_manager)
        for name in TOOLKIT_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name in ("PATH", "HOME"):
            monkeypatch.setenv(name, machine.environment[name])
        return machine

    return made
