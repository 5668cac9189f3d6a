"""Counts in ranges."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.histogram import Histogram


def test_a_value_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    assert histogram.cumulative() == [(1.0, 2), (2.0, 3), (math.inf, 4)]
    assert histogram.total == 10.0


@given(st.lists(st.floats(0, 1000)))
def test_every_value_is_counted_once_and_counts_never_fall(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    counts = [count for _, count in histogram.cumulative()]
    assert counts == sorted(counts)
    assert counts[-1] == len(values)
    assert all(count == sum(v <= end for v in values) for end, count in histogram.cumulative())
