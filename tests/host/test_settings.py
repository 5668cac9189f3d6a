"""The settings in force: what decides a value is named when the value is wrong."""

from __future__ import annotations

import pytest

from llamamgr.core.errors import ConfigError
from llamamgr.host.paths import Paths
from llamamgr.host.settings import load_config, place_of


def paths_with(text: str = "") -> Paths:
    paths = Paths.of_environment()
    paths.config.mkdir(parents=True)
    paths.config_file.write_text(text)
    return paths


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("KEEP_ALIVE", "5x", 'LLAMAMGR_KEEP_ALIVE=5x: time: unknown unit "x" in duration "5x"'),
        ("CONTEXT", "16k", "LLAMAMGR_CONTEXT=16k: must be a whole number"),
        ("CONTEXT", "-1", "LLAMAMGR_CONTEXT=-1: must be a whole number >= 0"),
        ("LOG_LEVEL", "loud", "LLAMAMGR_LOG_LEVEL=loud: must be one of debug, info, warning, error"),
        ("SOURCES", "store,x", "LLAMAMGR_SOURCES: there is no source 'x'"),
        ("INSTANCE", "A B", "LLAMAMGR_INSTANCE: invalid instance name 'A B'"),
        ("TLS_CERT", "/c", "LLAMAMGR_TLS_CERT: given without server.tls_key"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"LLAMAMGR_{variable}", value)
    with pytest.raises(ConfigError) as caught:
        load_config(paths_with())
    assert caught.value.what.startswith(told)


def test_the_context_of_the_environment_comes_before_that_of_the_file(monkeypatch: pytest.MonkeyPatch):
    paths = paths_with("context = 8192\n")
    assert load_config(paths).context == 8192
    monkeypatch.setenv("LLAMAMGR_CONTEXT", "32768")
    assert load_config(paths).context == 32768


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"server.host": "a:b"}, "--host: 'a:b' is no address"),
        ({"server.tls_cert": "/c"}, "--tls-cert: given without server.tls_key"),
    ],
)
def test_a_wrong_option_is_named_and_not_the_variable_it_overrides(
    flags: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:1")
    with pytest.raises(ConfigError) as caught:
        load_config(paths_with(), flags)
    assert caught.value.what == told


def test_a_mistake_in_the_file_is_not_laid_to_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLAMAMGR_KEEP_ALIVE", "5m")
    paths = paths_with("[models.a]\nkeep_alive = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        load_config(paths)
    assert caught.value.what.startswith(f'{paths.config_file}: models."a".keep_alive = "x": ')


def test_what_decides_a_value_is_the_option_then_the_variable_then_the_file(monkeypatch: pytest.MonkeyPatch):
    assert place_of("server.host") == "server.host"
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:1")
    assert place_of("server.host", {"server.host": ""}) == "LLAMAMGR_HOST"
    assert place_of("server.host", {"server.host": "127.0.0.1:2"}) == "--host"
