"""What a key allows, whom a secret belongs to, and how many requests a rate lets through."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.errors import ConfigError, UsageError
from llamamgr.core.keys import (
    ENDPOINTS,
    FOR_ANY_KEY,
    Bucket,
    Key,
    Rate,
    checked,
    draw,
    hash_of,
    owner_of,
    parse_expiry,
    parse_keys,
)

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HASH = hash_of("lmk-secret")


def key(**more: object) -> Key:
    return Key(HASH, "ann", **more)  # type: ignore[arg-type]


def test_a_secret_belongs_to_the_key_that_has_its_hash_and_to_no_other():
    keys = [Key(hash_of(f"lmk-{name}"), name) for name in ("ann", "bob", "eve")]
    assert [getattr(owner_of(f"lmk-{name}", keys), "name", None) for name in ("bob", "eve", "mal")] == [
        "bob",
        "eve",
        None,
    ]
    assert owner_of("", keys) is None
    assert owner_of(hash_of("lmk-bob"), keys) is None  # the file's content opens nothing


@pytest.mark.parametrize(
    ("pattern", "model", "allowed"),
    [
        ("qwen3:4b", "qwen3:4b", True),
        ("QWEN3:4B", "Qwen3:4b", True),
        ("qwen3:4b", "qwen3:40b", False),
        ("qwen3", "qwen3:8b", True),
        ("qwen3", "qwen3-coder:8b", False),
        ("qwen*", "qwen3-coder:8b", True),
        ("hf.co/org/*", "hf.co/org/repo:Q4_K_M", True),
        ("hf.co/org/*", "hf.co/organ/repo:Q4_K_M", False),
        ("?:1b", "a:1b", True),
        ("a.b:latest", "axb:latest", False),
        ("gpt-4o", "tiny:latest", True),
        ("GPT-4o", "tiny:latest", True),
        ("gpt-4o", "gpt-4o:latest", False),
    ],
)
def test_a_pattern_is_for_whole_names_in_any_case_and_an_alias_for_its_model(
    pattern: str, model: str, allowed: bool
):
    assert key(models=(pattern,)).may_use(model, {"gpt-4o": "tiny"}) is allowed


def test_a_key_without_limits_may_do_everything():
    assert key().may_use("any:thing")
    assert key().may_reach("/api/delete", "/api/delete")
    assert key().may_reach("/not/in/the/table", "/not/in/the/table")


def test_a_named_endpoint_is_its_routes_and_no_other():
    one = key(endpoints=("embeddings",))
    routes = {route for group in ENDPOINTS.values() for route in group}
    assert {route for route in routes if one.may_reach(route, route)} == set(ENDPOINTS["embeddings"])
    assert all(one.may_reach(route, route) for route in FOR_ANY_KEY)
    assert not one.may_reach("/some/new/route", "/some/new/route")
    assert one.may_reach("", "/no/such/route")


def test_no_route_is_in_two_endpoints():
    routes = [route for group in ENDPOINTS.values() for route in group]
    assert len(routes) == len(set(routes))
    assert not FOR_ANY_KEY & set(routes)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/upstream/tiny/slots", True),
        ("/upstream/tiny/slots/0", True),
        ("/upstream/tiny/props", False),
        ("/upstream/tiny/slots/../props", False),
        ("/upstream/tiny/slots/./x", False),
    ],
)
def test_a_path_pattern_is_for_the_whole_path_and_never_for_one_with_dot_segments(path: str, allowed: bool):
    assert key(endpoints=("/upstream/tiny/slots*",)).may_reach("/upstream/{rest}", path) is allowed


def test_a_key_has_expired_from_its_moment_on():
    one = key(expires=NOW)
    assert not one.has_expired(NOW.timestamp() - 0.001)
    assert one.has_expired(NOW.timestamp())
    assert not key().has_expired(9e9)


@pytest.mark.parametrize(
    ("text", "rate"), [("60/m", Rate(60, 60)), ("1/h", Rate(1, 3600)), ("5/d", Rate(5, 86400))]
)
def test_rates_are_a_count_in_a_unit_of_time(text: str, rate: Rate):
    assert Rate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "60", "0/m", "-1/m", "1.5/s", "60/w", "60 / m", "60/m\n"])
def test_what_is_no_rate_is_refused(text: str):
    with pytest.raises(ValueError, match="no rate"):
        Rate.parse(text)


RATES = st.builds(Rate, st.integers(1, 50), st.sampled_from([1.0, 60.0, 3600.0]))


@given(RATES, st.lists(st.floats(0, 120), min_size=1, max_size=120))
def test_no_stretch_of_time_lets_more_through_than_the_rate_and_one_burst(rate: Rate, gaps: list[float]):
    now, bucket, granted = 0.0, None, []
    for gap in gaps:
        now += gap
        bucket, wait = draw(bucket, rate, now)
        assert 0.0 <= bucket.tokens <= rate.count
        if not wait:
            granted.append(now)
    for first, start in enumerate(granted):
        for last in range(first, len(granted)):
            allowed = rate.count + (granted[last] - start) * rate.count / rate.seconds
            assert last - first + 1 <= allowed + 1e-6


@given(RATES, st.floats(0, 1000))
def test_who_waits_as_long_as_told_gets_through_and_who_does_not_is_told_again(rate: Rate, now: float):
    bucket = Bucket(0.0, now)
    _, wait = draw(bucket, rate, now)
    assert wait > 0
    early, still = draw(bucket, rate, now + wait / 2)
    assert still > 0
    assert draw(early, rate, now + wait + 1e-6)[1] == 0.0


def test_a_clock_that_stands_or_goes_back_gives_nothing_away():
    rate = Rate(1, 60)
    bucket, _ = draw(None, rate, 100.0)
    assert draw(bucket, rate, 100.0)[1] == 60.0
    assert draw(bucket, rate, 1.0)[1] == 60.0


def test_a_file_is_read_with_its_names_and_moments():
    [one] = parse_keys({"keys": {"ann": {"hash": HASH, "expires": NOW, "models": ["qwen*"]}}}, "keys.toml")
    assert one == Key(HASH, "ann", ("qwen*",), expires=NOW)
    assert parse_keys({}, "keys.toml") == ()


@pytest.mark.parametrize(
    "document",
    [
        {"key": {}},
        {"keys": 1},
        {"keys": {"ann": 1}},
        {"keys": {"ann": {}}},
        {"keys": {"ann": {"hash": ""}}},
        {"keys": {"ann": {"hash": HASH.upper()}}},
        {"keys": {"ann": {"hash": HASH, "name": "bob"}}},
        {"keys": {"ann": {"hash": HASH, "model": ["x"]}}},
        {"keys": {"ann": {"hash": HASH, "models": ["x y"]}}},
        {"keys": {"ann": {"hash": HASH, "models": "x"}}},
        {"keys": {"ann": {"hash": HASH, "endpoints": ["chta"]}}},
        {"keys": {"ann": {"hash": HASH, "rate": "60"}}},
        {"keys": {"ann": {"hash": HASH, "parallel": -1}}},
        {"keys": {"ann": {"hash": HASH, "priority": 1001}}},
        {"keys": {"ann": {"hash": HASH, "expires": datetime.datetime(2026, 1, 1)}}},
        {"keys": {"a b": {"hash": HASH}}},
    ],
)
def test_a_file_with_any_mistake_is_no_keys_but_an_error_that_names_it(document: dict[str, object]):
    with pytest.raises(ConfigError, match=r"keys\.toml") as caught:
        parse_keys(document, "keys.toml")
    assert caught.value.hint


def test_a_typo_in_an_endpoint_is_answered_with_what_was_meant():
    with pytest.raises(UsageError) as caught:
        checked(key(endpoints=("embedings",)))
    assert "embeddings" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12h", NOW + datetime.timedelta(hours=12)),
        ("30d", NOW + datetime.timedelta(days=30)),
        ("2w", NOW + datetime.timedelta(weeks=2)),
        ("2026-02-03", datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC)),
        ("2026-02-03T04:05:06+02:00", datetime.datetime(2026, 2, 3, 2, 5, 6, tzinfo=datetime.UTC)),
    ],
)
def test_a_time_to_expire_is_a_stretch_or_a_date(text: str, moment: datetime.datetime):
    assert parse_expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "30", "d", "0s", "2025-01-01", "soon", "999999w"])
def test_what_is_no_time_to_come_is_refused(text: str):
    with pytest.raises(UsageError):
        parse_expiry(text, NOW)
