"""What a daemon starts with: read and checked before there is a loop, so that a mistake is told before anything listens."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

import msgspec

from llamamgr.core.config import Config
from llamamgr.daemon.address import check_address, check_name
from llamamgr.daemon.keys import KeyFile, check_front
from llamamgr.daemon.tls import Tls, tls_of
from llamamgr.host.keys_file import load_keys
from llamamgr.host.paths import Paths
from llamamgr.host.settings import load_config, place_of
from llamamgr.host.tls import examine
from llamamgr.proxy.gate import access
from llamamgr.proxy.visit import RequestLabel


class Start(msgspec.Struct, frozen=True):
    """``flags`` are settings given on the command line, by dotted key ("" = not given), ``config`` is what they and the file make
    together; ``tls`` is None where the front speaks plain HTTP.
    """

    paths: Paths
    flags: Mapping[str, str]
    config: Config
    keys: KeyFile
    tls: Tls | None


class _OneLine(logging.Formatter):
    """A message is one line, hint and all, so that every line has its time; only a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return super().formatMessage(record).replace("\n", " | ")


def read_start(paths: Paths, flags: Mapping[str, str]) -> Start:
    """Read all of it, and log to stderr from here on. ``ConfigError`` names the file, line or key that is wrong."""
    config = load_config(paths, flags)
    _log_to_stderr(config)
    keys = KeyFile(paths)
    check_name(config.server.address, place_of("server.host", flags))
    check_front(config.server, keys.keyring.keys)
    return Start(paths, flags, config, keys, tls_of(config.server))


def check_start(paths: Paths, flags: Mapping[str, str], running_pid: int = 0) -> Config:
    """All that ``read_start`` reads, and whether the address can be had; nothing is changed, and the errors are those of a start.

    ``running_pid`` is the daemon that the new one would follow: what it listens on will be free.
    """
    config, place = load_config(paths, flags), place_of("server.host", flags)
    check_name(config.server.address, place)
    check_front(config.server, load_keys(paths))
    if config.server.tls_cert:
        examine(config.server.tls_cert, config.server.tls_key, time.time())
    check_address(config.server.address, place, running_pid)
    return config


def _log_to_stderr(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestLabel())
    form = "%(asctime)s %(levelname)s %(name)s: %(request)s%(message)s"
    handler.setFormatter(_OneLine(form))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    if config.server.access_log:
        access.setLevel(logging.INFO)  # it was asked for by name, whatever the level of the rest
