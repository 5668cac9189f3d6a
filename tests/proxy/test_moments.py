"""Times as Ollama writes them."""

from __future__ import annotations

import math

from llamamgr.proxy.moments import Stamps, expiry, rfc3339


def test_nanoseconds_are_written_out() -> None:
    assert rfc3339(1_700_000_000_000_000_123) == "2023-11-14T22:13:20.000000123Z"


def test_for_ever_is_the_year_that_go_ends_in() -> None:
    assert expiry(math.inf, 1_700_000_000 * 10**9).startswith("2316-")
    assert expiry(1_700_000_000.5, 0) == "2023-11-14T22:13:20.500000000Z"


def test_stamps_follow_their_clock_across_seconds() -> None:
    times = iter([999_999_999, 1_000_000_000, 1_000_000_001])
    stamp = Stamps(lambda: next(times))
    assert [stamp(), stamp(), stamp()] == [
        "1970-01-01T00:00:00.999999999Z",
        "1970-01-01T00:00:01.000000000Z",
        "1970-01-01T00:00:01.000000001Z",
    ]
