"""The server under test: the fake always, a real one where there is one (``real``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import fake_llama_server
from tests.fakes.launch import Launched, launched
from tests.golden import replay

TINYCHAT = replay.MODELS / "tinychat.gguf"
SLOTS, CONTEXT = 2, 1024


def real_binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue("real_build").tool("llama-server"))


@pytest.fixture(scope="session")
def fake_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_llama_server.install(tmp_path_factory.mktemp("fake") / "bin")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def binary(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("fake_binary") if request.param == "fake" else real_binary(request)


def arguments(model: Path = TINYCHAT) -> list[str]:
    return [
        "--model",
        str(model),
        "--alias",
        "tinychat",
        "-np",
        str(SLOTS),
        "-c",
        str(SLOTS * CONTEXT),
        "--no-webui",
    ]


@pytest.fixture
def server(binary: Path) -> Iterator[Launched]:
    with launched(binary, arguments()) as server:
        server.wait_healthy()
        yield server
