"""Server-sent events, both ways (WHATWG HTML §9.2), with the two habits of llama-server.

Comments (its pings, ``:`` alone) are skipped; an error may come as a field of its own, ``error: {…}``,
which the standard would ignore and which here is an event named ``error``.
"""

from __future__ import annotations

import msgspec

from llamamgr.wire.errors import ProtocolError

MAX_EVENT = 16 * 1024 * 1024


class Event(msgspec.Struct, frozen=True):
    """One event: ``name`` is empty for an unnamed one, ``data`` its lines joined by LF."""

    name: str
    data: bytes


class SseParser:
    """Reads events from any chunking of a stream.

    ``ProtocolError`` when one event is longer than ``max_event`` bytes. An event that the stream ends in
    before its blank line is no event; ``pending`` tells that there is one.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._held = bytearray()
        self._after_cr = False
        self._max_event = max_event

    @property
    def pending(self) -> bool:
        """True while an unfinished event is held."""
        return bool(self._held.strip())

    @property
    def is_between(self) -> bool:
        """True while nothing is held: what comes next begins an event."""
        return not self._held and not self._after_cr

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and self._is_fresh(data):
            # one whole event: how a busy stream comes
            return [Event("", data[6:-2])]
        data = self._unified(data)
        held = self._held
        if held:
            # the blank line may straddle the two pieces
            complete = (held.endswith(b"\n") and data.startswith(b"\n")) or b"\n\n" in data
            held += data
            if not complete:
                return self._bounded([])
            data = bytes(held)
            held.clear()
        blocks = data.split(b"\n\n")
        held += blocks.pop()
        return self._bounded([event for block in blocks if (event := _event(block)) is not None])

    def _is_fresh(self, data: bytes) -> bool:
        return not self._held and not self._after_cr and data.endswith(b"\n\n") and b"\r" not in data

    def _bounded(self, events: list[Event]) -> list[Event]:
        if len(self._held) > self._max_event:
            raise ProtocolError(f"an event is longer than {self._max_event} bytes", events)
        return events

    def _unified(self, data: bytes) -> bytes:
        """``data`` with LF for every line end; a CR at its very end counts at once, an LF after it is
        dropped.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" not in data:
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event("", block[6:])
    name, data = "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":
            name = "error"
            data.append(value)
    return Event(name, b"\n".join(data)) if data else None


def sse(data: bytes, event: str = "") -> bytes:
    """One event on the wire; ``data`` may have several lines."""
    head = f"event: {event}\n".encode() if event else b""
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    return head + b"data: " + data + b"\n\n"
