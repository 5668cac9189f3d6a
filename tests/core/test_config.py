"""The configuration: every mistake is named."""

import math

import pytest

from llamamgr.core.config import Address, Config, parse_address, parse_config
from llamamgr.core.errors import ConfigError


def test_an_empty_document_gives_the_defaults():
    assert parse_config({}) == Config()


def test_a_typo_is_answered_with_the_key_that_was_meant():
    with pytest.raises(ConfigError) as caught:
        parse_config({"scheduler": {"max_qeue": 3}}, "c.toml")
    assert "scheduler.max_qeue" in caught.value.what
    assert "scheduler.max_queue" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [{"keep_alive": "banana"}, {"keep_alive": True}, {"models_dirs": "x"}, {"server": {"body_limit": "big"}}],
)
def test_a_value_of_the_wrong_kind_names_the_file(data: dict[str, object]):
    with pytest.raises(ConfigError, match=r"c\.toml"):
        parse_config(data, "c.toml")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("0.0.0.0", Address("0.0.0.0", 11434)),
        (":8080", Address("127.0.0.1", 8080)),
        ("8080", Address("127.0.0.1", 8080)),
        ("http://localhost:9/v1", Address("localhost", 9)),
        ("[::1]:7", Address("::1", 7)),
        ("::1", Address("::1", 11434)),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, address: Address):
    assert parse_address(text) == address


def test_a_port_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="port"):
        parse_address("localhost:http")


def test_a_models_table_is_found_by_name_whatever_its_case_and_without_its_tag():
    config = parse_config(
        {"models": {"Qwen3:4b": {"parallel": 2}, "tiny": {"pin": True, "aliases": ["GPT"]}}}
    )
    assert config.settings_of("qwen3:4B").parallel == 2
    assert config.settings_of("tiny:latest").pin
    assert config.settings_of("other:latest").parallel == 0
    assert config.aliases == {"gpt": "tiny"}


def test_a_typo_in_a_models_table_names_the_table():
    with pytest.raises(ConfigError) as caught:
        parse_config({"models": {"tiny": {"paralel": 2}}})
    assert 'models."tiny".paralel' in caught.value.what
    assert "parallel" in caught.value.hint


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(None, math.inf), (0, math.inf), ("10m", 600.0), (30, 30.0), (-1, math.inf)]
)
def test_a_ttl_is_a_duration_and_none_is_no_limit(ttl: object, seconds: float):
    assert parse_config({"models": {"tiny": {"ttl": ttl}}}).settings_of("tiny").ttl_seconds == seconds


def test_a_pinned_model_has_no_ttl():
    with pytest.raises(ConfigError, match=r'models."tiny": pin'):
        parse_config({"models": {"tiny": {"ttl": "10m", "pin": True}}})


def test_a_models_keep_alive_must_be_a_duration():
    with pytest.raises(ConfigError, match="banana"):
        parse_config({"models": {"tiny": {"keep_alive": "banana"}}})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"keep_alive": "5 parsecs"}, 'keep_alive = "5 parsecs": time: unknown unit " parsecs"'),
        ({"context": "16k"}, 'context = "16k": must be a whole number'),
        ({"models": {"t": {"ttl": "x"}}}, 'models."t".ttl = "x": time: invalid duration "x"'),
        ({"models": {"t": {"context": -1}}}, 'models."t".context = -1: must be a whole number >= 0'),
        (
            {"groups": {"g": {"models": ["a"], "exclusive": 1}}},
            'groups."g".exclusive = 1: must be true or false, not a whole number',
        ),
        ({"groups": {"g": {}}}, 'groups."g".models: is missing'),
        (
            {"models": {"t": {"aliases": ["a", 4]}}},
            'models."t".aliases, item 2 = 4: must be text in quotes, not a whole number',
        ),
        ({"models": {"t": {"flags": {"x": [1]}}}}, 'models."t".flags."x": must be true or false, a whole'),
        ({"models": {"t": 3}}, 'models."t" = 3: must be a table, not a whole number'),
        ({"log_level": "loud"}, 'log_level = "loud": must be one of debug, info, warning, error'),
        ({"instance": "A B"}, "instance: invalid instance name 'A B'"),
        ({"server": {"host": "a:b"}}, "server.host: 'a:b' is no address"),
        ({"sources": ["x"]}, "sources: there is no source 'x'"),
    ],
)
def test_a_wrong_value_is_told_with_its_file_and_key(data: dict[str, object], told: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "c.toml")
    assert caught.value.what.startswith(f"c.toml: {told}")
    assert caught.value.hint and "`" not in caught.value.what


def test_two_tables_of_one_model_are_refused():
    with pytest.raises(ConfigError, match=r'models."tiny": is models."Tiny" once more'):
        parse_config({"models": {"Tiny": {"parallel": 1}, "tiny": {"parallel": 2}}})


def test_an_alias_of_two_models_is_refused_naming_both():
    with pytest.raises(ConfigError, match=r'models."b".aliases: "gpt" is an alias of models."a" already'):
        parse_config({"models": {"a": {"aliases": ["GPT"]}, "b": {"aliases": ["gpt"]}}})
    assert parse_config({"models": {"a": {"aliases": ["GPT", "gpt"]}}}).aliases == {"gpt": "a"}


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_a_certificate_without_its_key_is_refused_and_so_is_a_key_alone(given: str, missing: str):
    with pytest.raises(ConfigError, match=rf"server\.{given}: given without server\.{missing}"):
        parse_config({"server": {given: "/x.pem"}})


def test_with_a_certificate_the_address_is_https():
    server = parse_config({"server": {"host": "[::1]:7", "tls_cert": "/c", "tls_key": "/k"}}).server
    assert server.address.url == "https://[::1]:7"
    assert Config().server.address.url == "http://127.0.0.1:11434"
