"""What a real Ollama answered, asked of the whole program in the recorded order: a daemon, its store, a real llama-server."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.golden.replay import DEVIATIONS, Exchange, difference, load

pytestmark = pytest.mark.real

# These differ by what had been asked before.
STATE = {
    "ps-loaded": "when the record was made an embedding request had loaded the other model",
    "blob-post": "when the record was made the blob had been sent before",
}


def answer(url: str, exchange: Exchange) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(exchange.method, exchange.path, exchange.body, exchange.headers)
        told = connection.getresponse()
        return told.status, told.getheader("Content-Type", ""), told.read().decode()
    finally:
        connection.close()


def test_the_whole_program_answers_as_ollama_did(daemon: Daemon, home_with_models: Path) -> None:
    different = []
    for exchange in load():
        found = difference(exchange, *answer(daemon.url, exchange))
        if bool(found) != (exchange.name in DEVIATIONS) and exchange.name not in STATE:
            different.append(found or f"{exchange.name} does not deviate any more")
    assert not different, "\n".join(different)
