"""A build whose ``llama-server`` is a script that becomes the real one, or the fake: for faults a real engine has no switch for.

What ``ENGINE_PRELUDE`` in its environment says is run first, by the very process that becomes the engine (its pid stays), with
the engine's arguments as ``$@`` and its program as ``$engine``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.flags import parse_help
from llamamgr.host.files import write_atomic
from llamamgr.host.processes import capture
from llamamgr.instances.card_files import dump
from tests.fakes import fake_llama_server

_SCRIPT = '#!/bin/sh\nengine="{program}"\neval "$ENGINE_PRELUDE"\nexec "$engine" "$@"\n'


def wrapped(program: Path, card: BuildCard, root: Path, **capability: object) -> Build:
    """A build in the folder ``root``: ``card``, with its capabilities changed as given, and the script around ``program``."""
    (root / "bin").mkdir(parents=True)
    script = root / "bin" / "llama-server"
    script.write_text(_SCRIPT.format(program=program))
    script.chmod(0o755)
    assert card.capability is not None
    changed = msgspec.structs.replace(card.capability, tools=("llama-server",), **capability)
    card = msgspec.structs.replace(card, id=root.name, capability=changed)
    write_atomic(root / "build.toml", dump(card))
    return Build(card, str(root))


def fake_engine() -> BuildCard:
    """The card of a build whose llama-server is the fake."""
    command = [sys.executable, str(Path(fake_llama_server.__file__)), "--help"]
    flags = parse_help(capture(command, timeout=20).output)
    capability = Capability("b1", 1, "abc", ("llama-server",), flags)
    return BuildCard(
        "b1", "default", "cpu", 1, "abc", Source("directory"), verified=True, capability=capability
    )


def publish(program: Path, card: BuildCard, home: Path, name: str = "default", **capability: object) -> None:
    """Make that build the current one of the instance ``name`` in a home."""
    instance = home / "data" / "instances" / name
    wrapped(program, msgspec.structs.replace(card, instance=name), instance / "builds" / "b1", **capability)
    write_atomic(instance / "instance.toml", dump(InstanceSpec(name)))
    (instance / "current").symlink_to(Path("builds") / "b1")
