"""A prompt cache that outlives its model's unloading."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Daemon, until

pytestmark = pytest.mark.real
LONG = {
    "model": "selftest",
    "messages": [{"role": "user", "content": "tell me of the llamas " * 60}],
    "chat_template_kwargs": {"enable_thinking": False},
}


def cached(daemon: Daemon) -> int:
    return int(daemon.post("/v1/chat/completions", LONG)["timings"]["cache_n"])


def unload(daemon: Daemon) -> None:
    daemon.post("/api/generate", {"model": "selftest", "keep_alive": 0})
    until(lambda: daemon.children() == [])


def configure(daemon: Daemon, settings: str) -> None:
    (daemon.home / "config" / "config.toml").write_text(f"[scheduler]\n{settings}\n")
    daemon.stop()
    daemon._start()


def test_a_long_prompt_is_known_again_after_the_model_was_unloaded(daemon: Daemon):
    configure(daemon, "slot_cache_from = 0")
    assert cached(daemon) == 0
    unload(daemon)
    assert cached(daemon) > 500
    verdicts = json.loads((daemon.home / "state" / "slots" / "builds.json").read_bytes())
    assert list(verdicts.values()) == [True]


def test_a_prompt_that_was_read_in_no_time_is_not_worth_a_file(daemon: Daemon):
    configure(daemon, "slot_cache_from = 5")
    assert cached(daemon) == 0
    unload(daemon)
    assert cached(daemon) == 0


def test_no_slot_is_kept_where_the_configuration_says_so(daemon: Daemon):
    configure(daemon, "slot_cache = 0")
    assert cached(daemon) == 0
    unload(daemon)
    assert cached(daemon) == 0
    assert not (daemon.home / "state" / "slots").exists()
