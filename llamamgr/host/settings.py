"""The configuration in force: environment over file over default."""

from __future__ import annotations

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
    "LLAMAMGR_MODELS": "models_dirs",
    "LLAMAMGR_SOURCES": "sources",
    "LLAMAMGR_LOG_LEVEL": "log_level",
    "LLAMAMGR_TLS_CERT": "server.tls_cert",
    "LLAMAMGR_TLS_KEY": "server.tls_key",
}


def load_config(paths: Paths, flags: Mapping[str, str] = MappingProxyType({})) -> Config:
    """``config.toml`` under ``paths`` with the environment and then ``flags`` (dotted key → value, "" = not given) laid over it."""
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
        separator = {"models_dirs": os.pathsep, "sources": ","}.get(last)
        target[last] = [part.strip() for part in value.split(separator)] if separator else value
    return parse_config(data, "environment")


def instance_settings(paths: Paths) -> tuple[str, str]:
    """The instance that the environment names, and that which ``config.toml`` names; "" where one says nothing."""
    written = read_toml(paths.config_file).get("instance", "")
    return os.environ.get("LLAMAMGR_INSTANCE", ""), written if isinstance(written, str) else ""
