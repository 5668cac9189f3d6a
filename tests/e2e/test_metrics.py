"""``/metrics`` of a real daemon over a real engine."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr, until

MODEL = {"model": "selftest:latest"}


def scraped(daemon: Daemon, query: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"{daemon.url}/metrics{query}", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_real_load_its_tokens_and_its_end_are_counted(daemon: Daemon) -> None:
    body = {"model": "selftest", "messages": [{"role": "user", "content": "hello"}], "stream": False}
    told = daemon.post("/api/chat", body)
    assert told["message"]["content"] == selftest.ANSWER
    told_again = daemon.post("/v1/chat/completions", body)
    found = scraped(daemon)
    labels = tuple(sorted(MODEL.items()))
    usage = told_again["usage"]
    assert found["llamamgr_prompt_tokens_total", labels] == told["prompt_eval_count"] + usage["prompt_tokens"]
    assert found["llamamgr_generated_tokens_total", labels] == told["eval_count"] + usage["completion_tokens"]
    assert found["llamamgr_engine_starts_total", labels] == 1
    assert found["llamamgr_load_seconds_count", labels] == 1
    assert found["llamamgr_queue_wait_seconds_count", labels] == 2
    (memory,) = [v for (name, _), v in found.items() if name == "llamamgr_engine_memory_bytes"]
    assert memory > 1_000_000
    lag = [v for (name, _), v in found.items() if name == "llamamgr_event_loop_lag_seconds"]
    assert len(lag) == 2
    assert ("llamacpp:prompt_tokens_total", ()) in scraped(daemon, "?model=selftest")
    assert llamamgr("stop", "selftest").returncode == 0
    unloaded = ("llamamgr_unloads_total", (*labels, ("reason", "asked")))
    until(lambda: scraped(daemon).get(unloaded) == 1)
