"""llamamgr: build, version, supervise and serve your own llama.cpp.

The packages, top to bottom (imports only point downward; ARCHITECTURE.md has the picture):

==============  ==============================================================
``cli``         one file per command
``daemon``      composition root, control client, auto-spawn
``proxy``       HTTP front: routes, relay, upstream connection
``supervise``   makes ``plan`` real: children, the supervisor loop, health, logs
``instances``   llama.cpp builds: sources, build, verify, publish, list
``models``      GGUF models: self-test model, scan, index, resolve
``host``        the only door to the machine
``plan``        pure decisions: scheduler, memory
``wire``        pure protocols: HTTP/1.1, SSE, engine, dialects
``core``        facts: errors, names, config, cards, flags, GGUF header
==============  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamamgr.core.version import VERSION

if TYPE_CHECKING:
    from llamamgr.daemon.private import LlamaServer, Reply

__all__ = ["LlamaServer", "Reply", "__version__"]

__version__ = VERSION

_LAZY = {"LlamaServer": "llamamgr.daemon.private", "Reply": "llamamgr.daemon.private"}


def __getattr__(name: str) -> object:
    """``LlamaServer`` and ``Reply``, imported when they are asked for: most commands need neither, nor asyncio."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
