"""Go durations and keep_alive values, in Go's and Ollama's own words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.durations import FOREVER, format_duration, parse_duration, parse_keep_alive


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("-1s", -1),
        ("+2s", 2),
        ("0", 0),
        ("-0", 0),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("100ms", 0.1),
        ("1us1ns", 1.001e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
    ],
)
def test_a_go_duration_is_seconds(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "banana", "m", "--1s", ".s", "-", "1s.", "3000000h"])
def test_other_texts_are_invalid_as_go_says_it(text: str):
    with pytest.raises(ValueError, match=r"^time: invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["300", "-1", "1.5", "1h30"])
def test_a_bare_number_lacks_its_unit(text: str):
    with pytest.raises(ValueError, match=rf'^time: missing unit in duration "{text}"$'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "unit", "shown"),
    [
        ("5x", "x", "5x"),
        ("5 m", " m", "5 m"),
        ("1h m", "h m", "1h m"),
        ("5m!", "m!", "5m!"),
        ("1d", "d", "1d"),
        ('1"é', '\\"\\xc3\\xa9', '1\\"\\xc3\\xa9'),
    ],
)
def test_a_unit_that_is_none_is_told(text: str, unit: str, shown: str):
    with pytest.raises(ValueError, match="unknown unit") as refused:
        parse_duration(text)
    assert str(refused.value) == f'time: unknown unit "{unit}" in duration "{shown}"'


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0), (60, 60), (1.5, 1.5), ("5m", 300), (-1, FOREVER), ("-1s", FOREVER)]
)
def test_keep_alive_is_seconds_or_a_duration_and_negative_means_for_ever(value: object, seconds: float):
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "said"), [(True, "'bool'"), ([], "interface"), ({}, "map"), (None, "NoneType")]
)
def test_keep_alive_of_another_type_is_refused(value: object, said: str):
    with pytest.raises(ValueError, match=said):
        parse_keep_alive(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (12.4, "12s"),
        (59.9, "1m0s"),
        (299, "4m59s"),
        (3600, "1h0m"),
        (-5, "0s"),
        (math.inf, "Forever"),
    ],
)
def test_a_time_left_is_told_in_two_units(seconds: float, text: str):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_units_add_up(hours: int, minutes: int, seconds: int):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
