"""What the tests of wire/ share: answers recorded from a real llama-server (b11434, raw bytes), and ways to cut them."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import strategies as st

from llamamgr.wire import http1

RECORDED = Path(__file__).parent / "recorded"
CHATS = ("chat", "chat-length", "chat-tools", "chat-logprobs")
COMPLETIONS = ("completion", "completion-length", "completion-stop", "completion-logprobs")
# of the selftest model: reasoning, with the prompt's progress; a stop text, with what ``verbose`` tells
THOUGHTFUL = ("chat-thinking", "chat-stop")
PROMPTS = "completion-prompts"
REFUSALS = ("chat-refused", "completion-refused")
ANSWERS = (*CHATS, *COMPLETIONS, *THOUGHTFUL, PROMPTS, *REFUSALS, "apply-template", "tokenize", "detokenize")

# Where to cut: fractions, so that one strategy serves any length; few cuts or many.
CUTS = st.lists(st.floats(0, 1), max_size=12)


def recorded(name: str) -> bytes:
    """The raw bytes of an answer, from its status line to its last chunk."""
    return (RECORDED / f"{name}.http").read_bytes()


def body(name: str) -> bytes:
    """The body of a recorded answer."""
    events = http1.ResponseParser("POST").feed(recorded(name))
    return b"".join(event.data for event in events if isinstance(event, http1.Body))


def pieces(data: bytes, cuts: list[float]) -> list[bytes]:
    """``data`` cut at those fractions of its length; some pieces may be empty."""
    at = [0, *sorted(round(cut * len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


def single_bytes(data: bytes) -> list[bytes]:
    """``data`` cut everywhere."""
    return [data[at : at + 1] for at in range(len(data))]


# How to spoil bytes: replace, drop or repeat some at a place that is a fraction of the length.
SPOILS = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 12)), min_size=1, max_size=3
)


def spoiled(data: bytes, spoils: list[tuple[float, bytes, int]]) -> bytes:
    """``data`` with bytes put in place of so many others."""
    for at, instead, dropped in spoils:
        place = round(at * len(data))
        data = data[:place] + instead + data[place + dropped :]
    return data


def sse_events(data: bytes) -> list[tuple[str, bytes]]:
    """(name, data) of the events of a stream that must be well-formed, each with its blank line."""
    assert data.endswith(b"\n\n") or not data, data[-80:]
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        lines = block.split("\n")
        if lines == [":"]:
            continue
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else ""
        assert len(lines) == 1, block
        assert lines[0].startswith("data: "), block
        found.append((name, lines[0].removeprefix("data: ").encode()))
    return found
