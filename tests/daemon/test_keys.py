"""The file of API keys and a daemon that runs: what is read when, and what a mistake changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from llamamgr.core.config import ServerConfig
from llamamgr.core.errors import ConfigError
from llamamgr.core.keys import Key, hash_of, parse_expiry
from llamamgr.daemon import keys as daemon_keys
from llamamgr.daemon.keys import KeyFile, check_front
from llamamgr.host.keys_file import change_keys
from llamamgr.host.paths import Paths

ANN, BOB = Key(hash_of("lmk-ann"), "ann"), Key(hash_of("lmk-bob"), "bob")


@pytest.fixture
def paths() -> Paths:
    return Paths.of_environment()


@contextlib.asynccontextmanager
async def watched(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KeyFile]:
    monkeypatch.setattr(daemon_keys, "_LOOK_SECONDS", 0.01)
    file = KeyFile(paths)
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(file.watch())
        yield file
        watch.cancel()


async def until_there_are(file: KeyFile, *names: str) -> None:
    async with asyncio.timeout(10):
        while {key.name for key in file.keyring.keys} != set(names):
            await asyncio.sleep(0.01)


async def test_a_change_of_the_file_is_noticed_without_a_word(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    async with watched(paths, monkeypatch) as file:
        assert file.keyring.is_empty
        change_keys(paths, lambda keys: (ANN, BOB))
        await until_there_are(file, "ann", "bob")
        change_keys(paths, lambda keys: (BOB,))
        await until_there_are(file, "bob")
        paths.keys_file.unlink()
        await until_there_are(file)


async def test_a_file_that_breaks_opens_nothing_and_closes_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    change_keys(paths, lambda keys: (ANN,))
    async with watched(paths, monkeypatch) as file:
        paths.keys_file.write_text("[keys.ann\n")
        async with asyncio.timeout(10):
            while "stay as they were" not in caplog.text:
                await asyncio.sleep(0.01)
        assert file.keyring.keys == (ANN,)
        with pytest.raises(ConfigError):
            await file.reread()
        assert file.keyring.keys == (ANN,)
        change_keys_anew(paths)
        await until_there_are(file, "bob")
    assert caplog.text.count("stay as they were") == 1  # said once, not at every look


def change_keys_anew(paths: Paths) -> None:
    paths.keys_file.unlink()
    change_keys(paths, lambda keys: (BOB,))


def test_a_daemon_does_not_start_on_a_broken_file(paths: Paths):
    paths.config.mkdir(parents=True)
    paths.keys_file.write_text("[keys.ann\n")
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        KeyFile(paths)


@pytest.mark.parametrize("host", ["0.0.0.0:0", "[::]:0", "192.168.1.2:1", "llm.example", "127.1:80"])
def test_a_front_for_the_network_needs_a_key_that_has_not_expired(host: str):
    server = ServerConfig(host=host)
    expired = Key(hash_of("x"), "old", expires=parse_expiry("2020-01-01", _at(2019)))
    for keys in ((), (expired,)):
        with pytest.raises(ConfigError) as caught:
            check_front(server, keys)
        assert "llamamgr key create" in caught.value.hint
    check_front(server, (expired, ANN))


def _at(year: int):
    import datetime

    return datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("host", ["127.0.0.1:0", "localhost", "[::1]:1", ":8080"])
def test_a_front_on_loopback_needs_none(host: str):
    check_front(ServerConfig(host=host), ())


def test_a_front_that_is_open_on_purpose_says_so(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check_front(ServerConfig(host="0.0.0.0:0", allow_network_without_key=True), ())
    assert "whoever reaches 0.0.0.0:0 needs no API key" in caplog.text


def test_the_warning_is_kept_for_a_front_that_asks_nobody_although_there_are_keys(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING):
        check_front(ServerConfig(host="0.0.0.0:0", allow_network_without_key=True), (ANN,))
    assert "needs no API key" in caplog.text


def test_keys_that_are_asked_for_on_loopback_while_there_are_none_are_a_warning(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING):
        check_front(ServerConfig(require_key=True), ())
    assert "only the command line is answered" in caplog.text
