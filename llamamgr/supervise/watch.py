"""Is a ready child still alive in more than name? Asked only while a request waits on it.

Four things make a child sick: ``/health`` that does not answer any more (a stopped process, a wedged server), slots that claim to
work and do not move, a slot that gives nothing while the others go on (``plan.progress``), and a log line that says the device is
lost while nothing moves any more. A line alone makes none: clients can have theirs written to the log. Where no slot works, nothing
is judged: a request may be on the child whose client is slow to read or to send. A child with a stuck slot gets no new requests and
ends once nothing else works on it, so that the others lose nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec

from llamamgr.core.last_words import DEVICE_LOST
from llamamgr.plan.progress import Progress, SlotSeen
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.probe import ask

INTERVAL = 1.0
_PROBE_DEADLINE = 3.0
_MISSES = 3  # three silent probes of 3 s, a second apart: noticed within 12 s
_MOVES = re.compile(
    rb'"(?:n_decoded|n_prompt_tokens_processed|n_past|n_prompt_tokens|id_task|is_processing)":[^,}]*'
)
_CLAIMS = re.compile(rb'"is_processing":\s*(true|false)')
_LINGER = 15.0  # seconds without any move after saying that its device is lost; most die of it by themselves


class _NextToken(msgspec.Struct):
    n_decoded: int = 0


class _Slot(msgspec.Struct):
    id: int = -1
    id_task: int = -1
    is_processing: bool = False
    next_token: _NextToken | list[_NextToken] = []


_decode_slots = msgspec.json.Decoder(list[_Slot]).decode


class Watch:
    """One child's watch. ``leases`` tells how many requests are on it, ``last_log`` what it said last.

    ``on_stuck`` is told once when a slot is stuck. ``progress`` is what is known of the slots, and how fast answers come.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        leases: Callable[[], int],
        last_log: Callable[[], str],
        on_stuck: Callable[[str], None],
        stall_wait: float,
        progress: Progress,
    ) -> None:
        self._endpoint = endpoint
        self._leases = leases
        self._last_log = last_log
        self._on_stuck = on_stuck
        self._stall_wait = stall_wait
        self._progress = progress
        self._was_stuck = False
        self._rest()

    def _rest(self) -> None:
        self._misses = 0
        self._moved = asyncio.get_running_loop().time()
        self._seen = b""
        self._lost_since = 0.0
        self._progress.rest()

    async def until_sick(self) -> str:
        """Return why the child must go. Waits for ever while it is well; costs two small requests a second while it is busy."""
        while True:
            await asyncio.sleep(INTERVAL)
            if not self._leases():
                self._rest()
                continue
            cause = await self._deaf()
            if (
                not self._misses
            ):  # who misses a probe is not asked a second thing: each would wait its own 3 s
                cause = await self._halted()
            cause = cause or self._without_device()
            if cause:
                return cause

    async def _deaf(self) -> str:
        answer = await ask(self._endpoint, "/health", _PROBE_DEADLINE)
        self._misses = 0 if answer is not None and answer.status == 200 else self._misses + 1
        if self._misses < _MISSES:
            return ""
        silent = _MISSES * (_PROBE_DEADLINE + INTERVAL)
        return f"it stopped answering /health for {silent:.0f} s with a request on it"

    async def _halted(self) -> str:
        """By ``/slots``, which does not answer between two long batches; where a build has none, only ``/health`` can tell."""
        now = asyncio.get_running_loop().time()
        answer = await ask(self._endpoint, "/slots", _PROBE_DEADLINE)
        if answer is not None:
            moves = b"".join(_MOVES.findall(answer.body)) if answer.status == 200 else str(now).encode()
            if moves != self._seen or _is_idle(answer.body):
                self._moved, self._seen = now, moves
        if now - self._moved > self._stall_wait:
            return f"none of its slots moved for {self._stall_wait:g} s with a request on it"
        return self._stuck(working(answer.body), now) if answer is not None and answer.status == 200 else ""

    def _stuck(self, rows: list[SlotSeen], now: float) -> str:
        self._progress.saw(rows, now)
        stuck = self._progress.stuck(now)
        if not stuck:
            return ""
        told = f"slot {', '.join(map(str, sorted(stuck)))} gave no token while others went on"
        if not self._was_stuck:
            self._was_stuck = True
            self._on_stuck(told)
        is_alone = self._leases() <= len(stuck) and {row.id for row in rows} <= stuck
        return told if is_alone else ""

    def _without_device(self) -> str:
        now = asyncio.get_running_loop().time()
        said = DEVICE_LOST.search(self._last_log())
        self._lost_since = (self._lost_since or now) if said else 0.0
        if not said or now - max(self._lost_since, self._moved) <= _LINGER:
            return ""
        return "its log says that its device is lost, and nothing has moved since"


def _is_idle(body: bytes) -> bool:
    """True when all slots say that they do nothing."""
    claims = _CLAIMS.findall(body)
    return bool(claims) and b"true" not in claims


def working(body: bytes) -> list[SlotSeen]:
    """The slots of an answer of ``/slots`` that work; none when it cannot be read, as from a build that writes it otherwise."""
    try:
        rows = _decode_slots(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return [SlotSeen(row.id, row.id_task, _decoded(row)) for row in rows if row.is_processing]


def _decoded(row: _Slot) -> int:
    tokens = row.next_token if isinstance(row.next_token, list) else [row.next_token]
    return sum(token.n_decoded for token in tokens)
