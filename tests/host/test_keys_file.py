"""``keys.toml``: private, changed by rename, never read past a mistake."""

from __future__ import annotations

import datetime
import stat
import threading

import pytest

from llamamgr.core.errors import ConfigError
from llamamgr.core.keys import Key, hash_of
from llamamgr.host.keys_file import change_keys, fingerprint, load_keys, new_secret
from llamamgr.host.paths import Paths

FULL = Key(
    hash_of("lmk-a"),
    "ann@home",
    ("qwen*", "tiny:1b"),
    ("chat", "/v1/*"),
    "60/m",
    2,
    -3,
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(2027, 1, 1, 12, 30, tzinfo=datetime.UTC),
)


@pytest.fixture
def paths() -> Paths:
    return Paths.of_environment()


def test_what_is_written_is_read_again_and_only_its_owner_may_read_it(paths: Paths):
    assert load_keys(paths) == ()
    change_keys(paths, lambda keys: (*keys, FULL, Key(hash_of("lmk-b"), "bob")))
    assert load_keys(paths) == (FULL, Key(hash_of("lmk-b"), "bob"))
    assert stat.S_IMODE(paths.keys_file.stat().st_mode) == 0o600
    assert sorted(path.name for path in paths.config.iterdir()) == ["keys.toml"]


def test_a_file_that_others_can_write_is_not_believed(paths: Paths):
    change_keys(paths, lambda keys: (FULL,))
    paths.keys_file.chmod(0o660)
    with pytest.raises(ConfigError, match="written by others"):
        load_keys(paths)


def test_what_could_not_be_read_again_is_not_written(paths: Paths):
    change_keys(paths, lambda keys: (FULL,))
    with pytest.raises(ConfigError):
        change_keys(paths, lambda keys: (*keys, Key("no hash", "bob")))
    assert load_keys(paths) == (FULL,)


def test_a_broken_file_is_neither_read_nor_overwritten(paths: Paths):
    paths.config.mkdir(parents=True)
    paths.keys_file.write_text("[keys.ann\n")
    paths.keys_file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        change_keys(paths, lambda keys: (FULL,))
    assert paths.keys_file.read_text() == "[keys.ann\n"


def test_two_who_change_it_at_once_both_find_their_change_in_it(paths: Paths):
    def add(name: str) -> None:
        change_keys(paths, lambda keys: (*keys, Key(hash_of(name), name)))

    threads = [threading.Thread(target=add, args=(f"k{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in load_keys(paths)} == {f"k{number}" for number in range(8)}


def test_a_change_shows_in_the_fingerprint(paths: Paths):
    prints = [fingerprint(paths)]
    for keys in ((FULL,), (), (FULL,)):
        change_keys(paths, lambda _, keys=keys: keys)
        prints.append(fingerprint(paths))
    assert len(set(prints)) == 4


def test_secrets_are_recognisable_and_never_the_same():
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(secret.startswith("lmk-") and len(secret) == 47 for secret in made)
