"""Spawning a long-lived child from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from llamamgr.host.processes import die_with_parent


async def spawn_child(argv: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """A process in a session of its own that dies with this one; stdout and stderr come as one pipe, stdin is empty.

    Must run on the main thread: the kernel ties the parent-death signal to the thread that forked.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
