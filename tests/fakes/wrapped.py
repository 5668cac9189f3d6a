"""A build whose ``llama-server`` is a script that becomes the real one, or the fake: for faults a real engine has no switch for.

What ``ENGINE_PRELUDE`` in its environment says is run first, by the very process that becomes the engine (its pid stays), with
the engine's arguments as ``$@`` and its program as ``$engine``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard
from llamamgr.host.files import write_atomic
from llamamgr.instances.store import dump

_SCRIPT = '#!/bin/sh\nengine="{program}"\neval "$ENGINE_PRELUDE"\nexec "$engine" "$@"\n'


def wrapped(program: Path, card: BuildCard, root: Path, **capability: object) -> Build:
    """A build in the folder ``root``: ``card``, with its capabilities changed as given, and the script around ``program``."""
    (root / "bin").mkdir(parents=True)
    script = root / "bin" / "llama-server"
    script.write_text(_SCRIPT.format(program=program))
    script.chmod(0o755)
    assert card.capability is not None
    changed = msgspec.structs.replace(card.capability, tools=("llama-server",), **capability)
    card = msgspec.structs.replace(card, id=root.name, instance="default", capability=changed)
    write_atomic(root / "build.toml", dump(card))
    return Build(card, str(root))
