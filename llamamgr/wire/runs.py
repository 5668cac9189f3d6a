"""Runs of an engine's frames that differ in their text and in nothing else, read all at once.

Nearly every frame of a streamed chat is ``data: {…"delta":{"content":"TEXT"}…}`` with the same bytes around ``TEXT`` as in the
frame before it. A frame that was read and checked in full teaches what these bytes are; frames that have the same ones need no
reading but of their text. Where many come with one read, as they do when a model is fast or many are asked, the cost of one falls
to a fraction.

llama-server tells the time in every frame, so what was learned lasts for about a second.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import msgspec

_BODY = rb'[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4}'
_PLAIN_FRAME = re.compile(rb'(data: \{.*?"delta":\{"content":")((?:%b)*)("\}.*\}\n\n)' % _BODY)
_TEXTS = re.compile(rb"(?:%b|\n)*+" % _BODY)
MARK = b'"delta":{"content":"'
_TRIES = 8  # lessons in a row that led to no run, after which a stream is taken to be of another kind
_OUTER = frozenset({"choices", "created", "id", "model", "system_fingerprint", "object"})


class Runs:
    """The frames of one stream. ``before`` and ``after`` are what is around the text now, empty while nothing has been learned."""

    def __init__(self) -> None:
        self.before = b""
        self.after = b""
        self._tries = 0

    def learn(self, frame: bytes) -> None:
        """Take an event, from ``data:`` to its empty line, as what the coming ones look like; nothing when it is no plain text."""
        if MARK not in frame or self._tries >= _TRIES:
            return
        self._tries += 1
        match = _PLAIN_FRAME.fullmatch(frame)
        if match is not None and _is_plain(match[1], match[3]):
            self.before, self.after = match[1], match[3]

    def take(self, pieces: Sequence[bytes], at: int) -> list[bytes]:
        """The texts of the frames that begin with ``pieces[at]``, as they stand between their quotes; empty when it is none.

        A piece is what came as one chunk of the body, and llama-server sends a chunk for each frame.
        """
        if not self.before or not pieces[at].startswith(self.before):
            return []
        # the last piece of a read is often cut through
        whole = pieces[at : len(pieces) if pieces[-1].endswith(self.after) else -1]
        texts = self._all(whole)
        if texts is None:
            texts = self._first(whole)
        if not are_sound(texts):
            texts = list(itertools.takewhile(lambda text: are_sound([text]), texts))
        if texts:
            self._tries = 0
        return texts

    def _all(self, pieces: Sequence[bytes]) -> list[bytes] | None:
        """The texts of ``pieces`` if all of them are of the known kind: then they come together again to the same bytes."""
        start, stop = len(self.before), -len(self.after)
        texts = [piece[start:stop] for piece in pieces]
        together = self.before + (self.after + self.before).join(texts) + self.after
        return texts if together == b"".join(pieces) else None

    def _first(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The texts of those that come before the first of another kind."""
        before, after = self.before, self.after
        start, stop = len(before), -len(after)
        known = itertools.takewhile(
            lambda piece: piece.startswith(before) and piece.endswith(after) and len(piece) >= start - stop,
            pieces,
        )
        return [piece[start:stop] for piece in known]


def are_sound(texts: Sequence[bytes]) -> bool:
    """True when each could stand between the quotes of a JSON string."""
    joined = b"\n".join(texts)
    if b"\\ud" in joined or b"\\uD" in joined:
        return False  # surrogates must come in pairs: left to a reader that knows
    if joined.count(b"\n") > max(0, len(texts) - 1) or not _TEXTS.fullmatch(joined):
        return False
    return joined.isascii() or _is_utf8(joined)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(before: bytes, after: bytes) -> bool:
    """True when any sound text between these is the one thing that an answer's delta says."""
    try:
        whole = msgspec.json.decode((before + b"?" + after).removeprefix(b"data: "))
        (choice,) = whole["choices"]
        told = {**choice, "index": 0} == {"finish_reason": None, "index": 0, "delta": {"content": "?"}}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError):
        return False
    return told and whole.keys() <= _OUTER
