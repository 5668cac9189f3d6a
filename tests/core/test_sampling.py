"""Defaults and clamps of a model: names of every dialect, and every mistake named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llamamgr.core.config import ModelConfig, parse_config
from llamamgr.core.errors import ConfigError


def settings(**table: Any) -> ModelConfig:
    return parse_config({"models": {"tiny": table}}).settings_of("tiny:latest")


def test_every_dialects_names_mean_the_engines():
    told = settings(
        defaults={"max_tokens": 5, "num_keep": 1, "stop": "END", "temperature": 0.7},
        clamps={"num_predict": 9, "temperature": [0, 1.5], "n_cmpl": 4},
    )
    assert told.defaults == {"n_predict": 5, "n_keep": 1, "stop": ["END"], "temperature": 0.7}
    assert told.clamps == {"n_predict": (None, 9), "temperature": (0, 1.5), "n": (None, 4)}


def test_a_configuration_that_was_read_can_be_read_again():
    config = parse_config(
        {"models": {"tiny": {"defaults": {"seed": 1}, "clamps": {"top_k": [5, 9], "max_tokens": 3}}}}
    )
    assert parse_config(msgspec.to_builtins(config)) == config


@pytest.mark.parametrize(
    ("table", "what", "hint"),
    [
        ({"defaults": {"temprature": 1}}, 'models."tiny".defaults.temprature', "defaults.temperature?"),
        ({"clamps": {"max_token": 1}}, 'models."tiny".clamps.max_token', "clamps.max_tokens?"),
        ({"defaults": {"zzz": 1}}, "unknown key", "there are"),
        ({"defaults": {"temperature": "hot"}}, "temperature must be a number", ""),
        ({"defaults": {"temperature": True}}, "temperature must be a number", ""),
        ({"defaults": {"temperature": float("nan")}}, "temperature must be a number", ""),
        ({"defaults": {"top_k": 1.5}}, "top_k must be a whole number", ""),
        ({"defaults": {"stop": ["a", 1]}}, "stop must be a text or a list of texts", ""),
        ({"defaults": {"ignore_eos": 1}}, "ignore_eos must be true or false", ""),
        ({"defaults": {"grammar": 1}}, "grammar must be a text", ""),
        ({"defaults": {"max_tokens": 1, "n_predict": 2}}, "names n_predict twice", "one thing"),
        ({"defaults": {"n": 2}}, "defaults.n cannot have a default", ""),
        ({"defaults": {"temperature": 2}, "clamps": {"temperature": 1}}, "lies outside", ""),
        ({"defaults": {"n_predict": -1}, "clamps": {"n_predict": 99}}, "lies outside", ""),
        ({"defaults": 3}, 'models."tiny".defaults must be a table', ""),
        ({"clamps": {"stop": 3}}, "stop cannot be clamped", ""),
        ({"clamps": {"temperature": [2, 1]}}, "2 is above 1", ""),
        ({"clamps": {"temperature": [1]}}, "a number or a pair", ""),
        ({"clamps": {"temperature": None}}, "expected `int | float`", ""),
        ({"clamps": {"n_predict": 1.5}}, "n_predict must be a whole number", ""),
    ],
)
def test_a_mistake_is_named_with_its_key(table: dict[str, Any], what: str, hint: str):
    with pytest.raises(ConfigError) as caught:
        settings(**table)
    assert caught.value.what.startswith("config.toml: ")
    assert what.lower() in caught.value.what.lower()
    assert hint in caught.value.hint
