"""The configuration in force: environment over file over default."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from llamamgr.core.config import Config, parse_config
from llamamgr.host.files import read_toml
from llamamgr.host.paths import Paths

# Environment variable → dotted key.
ENVIRONMENT = {
    "LLAMAMGR_HOST": "server.host",
    "LLAMAMGR_INSTANCE": "instance",
    "LLAMAMGR_KEEP_ALIVE": "keep_alive",
    "LLAMAMGR_CONTEXT": "context",
    "LLAMAMGR_MODELS": "models_dirs",
    "LLAMAMGR_SOURCES": "sources",
    "LLAMAMGR_LOG_LEVEL": "log_level",
    "LLAMAMGR_TLS_CERT": "server.tls_cert",
    "LLAMAMGR_TLS_KEY": "server.tls_key",
}
# Dotted key → the option of ``serve``.
OPTIONS = {"server.host": "--host", "server.tls_cert": "--tls-cert", "server.tls_key": "--tls-key"}
_NO_FLAGS: Mapping[str, str] = MappingProxyType({})


def load_config(paths: Paths, flags: Mapping[str, str] = _NO_FLAGS) -> Config:
    """``config.toml`` under ``paths`` with the environment and then ``flags`` (dotted key → value, "" = not given) laid over it.

    ``ConfigError`` names the file, the variable or the option that is wrong.
    """
    config = parse_config(read_toml(paths.config_file), str(paths.config_file))
    overrides = {key: os.environ[name] for name, key in ENVIRONMENT.items() if os.environ.get(name)}
    overrides |= {key: value for key, value in flags.items() if value}
    if not overrides:
        return config
    data = msgspec.to_builtins(config)
    if "instance" in overrides:
        for table in data["models"].values():
            table.pop("instance", None)  # the environment comes before a model's own setting
    for key, value in overrides.items():
        *sections, last = key.split(".")
        target = data
        for section in sections:
            target = target[section]
        target[last] = _read(last, value)
    return parse_config(data, str(paths.config_file), {key: place_of(key, flags) for key in overrides})


def _read(key: str, text: str) -> object:
    """What a variable or an option says; a number that is none stays text, which the parser then names."""
    separator = {"models_dirs": os.pathsep, "sources": ","}.get(key)
    if separator:
        return [part.strip() for part in text.split(separator)]
    if key == "context":
        with contextlib.suppress(ValueError):
            return int(text)
    return text


def place_of(key: str, flags: Mapping[str, str] = _NO_FLAGS) -> str:
    """What decides the value of the dotted ``key``: an option, a variable, or the key itself, which stands in ``config.toml``."""
    if flags.get(key):
        return OPTIONS[key]
    return next((name for name, named in ENVIRONMENT.items() if named == key and os.environ.get(name)), key)


def instance_settings(paths: Paths) -> tuple[str, str]:
    """The instance that the environment names, and that which ``config.toml`` names; "" where one says nothing."""
    written = read_toml(paths.config_file).get("instance", "")
    return os.environ.get("LLAMAMGR_INSTANCE", ""), written if isinstance(written, str) else ""
