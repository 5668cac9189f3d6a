"""Is a ready child still alive in more than name? Asked only while a request waits on it.

Three things make a child sick: ``/health`` that does not answer any more (a stopped process, a wedged server), slots that claim to
work and do not move, and a log line that says the device is lost while the process lives on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.probe import ask

INTERVAL = 1.0
_PROBE_DEADLINE = 3.0
_MISSES = 3  # three silent probes of 3 s, a second apart: noticed within 12 s
_MOVES = re.compile(
    rb'"(?:n_decoded|n_prompt_tokens_processed|n_past|n_prompt_tokens|id_task|is_processing)":[^,}]*'
)
DEVICE_LOST = re.compile(
    r"(?:CUDA|ROCm|HIP|SYCL) error|device lost|DeviceLost|GGML_ASSERT|ggml_abort|NVRM: Xid|hipErrorNoDevice"
)
_LINGER = 5.0  # what a process may take to die after saying that its device is lost


async def until_sick(
    endpoint: Endpoint, is_busy: Callable[[], bool], last_log: Callable[[], str], stall_wait: float
) -> str:
    """Return why the child must go. Waits for ever while it is well; costs one small request a second while it is busy."""
    loop = asyncio.get_running_loop()
    misses, moved, seen, lost_since = 0, loop.time(), b"", 0.0
    while True:
        await asyncio.sleep(INTERVAL)
        if not is_busy():
            misses, moved, seen, lost_since = 0, loop.time(), b"", 0.0
            continue
        misses = 0 if await _answers(endpoint) else misses + 1
        if misses >= _MISSES:
            return f"it stopped answering /health for {_MISSES * (_PROBE_DEADLINE + INTERVAL):.0f} s with a request on it"
        moves = await _moves(endpoint)
        if moves is not None and moves != seen:
            moved, seen = loop.time(), moves
        if loop.time() - moved > stall_wait:
            return f"none of its slots moved for {stall_wait:g} s with a request on it"
        line = last_log()
        if DEVICE_LOST.search(line):
            lost_since = lost_since or loop.time()
            if loop.time() - lost_since > _LINGER:
                return f"its log says: {line.strip()}"


async def _answers(endpoint: Endpoint) -> bool:
    answer = await ask(endpoint, "/health", _PROBE_DEADLINE)
    return answer is not None and answer.status == 200


async def _moves(endpoint: Endpoint) -> bytes | None:
    """All numbers of ``/slots`` that move while a slot works; None while it does not answer, as between two long batches.

    Something new each time where the build has no ``/slots``: then only ``/health`` can tell.
    """
    answer = await ask(endpoint, "/slots", _PROBE_DEADLINE)
    if answer is None:
        return None
    if answer.status != 200:
        return str(asyncio.get_running_loop().time()).encode()
    return b"".join(_MOVES.findall(answer.body))
