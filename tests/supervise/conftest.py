"""A supervisor over the fake llama-server: real child processes, faults on demand."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llamamgr.core.cards import Build, BuildCard, Capability, ModelCard, Source
from llamamgr.core.config import Config, SchedulerConfig
from llamamgr.core.flags import parse_help
from llamamgr.host.processes import capture
from llamamgr.supervise.supervisor import Supervisor

FAKE = Path(__file__).parent.parent / "fakes" / "fake_llama_server.py"
TINY = Path(__file__).parent.parent / "golden" / "models" / "tinychat.gguf"
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def fake_help() -> dict[str, str]:
    import sys

    return parse_help(capture([sys.executable, str(FAKE), "--help"], timeout=20).output)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket name."""
    folder = Path(tempfile.mkdtemp(prefix="lm-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fake_build(short_folder: Path, fake_help: dict[str, str]) -> Callable[..., Build]:
    """A build whose llama-server is the fake, with the faults given."""

    def make(faults: str = "", name: str = "default", **changes: object) -> Build:
        root = short_folder / name
        (root / "bin").mkdir(parents=True, exist_ok=True)
        program = root / "bin" / "llama-server"
        program.unlink(missing_ok=True)
        shutil.copy(FAKE, program)
        program.chmod(0o755)
        capability = Capability("b1", 1, "abc", ("llama-server",), fake_help)
        capability = msgspec.structs.replace(capability, **changes)
        environment = {"FAKE_LLAMA": faults} if faults else {}
        card = BuildCard(
            "b1",
            name,
            "cpu",
            1,
            "abc",
            Source("directory"),
            verified=True,
            environment=environment,
            capability=capability,
        )
        return Build(card, str(root))

    return make


def model(name: str = "tiny", *, size: int = MIB, **changes: object) -> ModelCard:
    """A model card that needs no file: the fake never opens it."""
    card = ModelCard(f"{name}:latest", name * 8, (str(TINY),), size, float(sum(name.encode())), context=2048)
    return msgspec.structs.replace(card, **changes)


class Chosen:
    """The builds of an instance with at most one former build to go back to."""

    def __init__(self, build: Build, former: Build | None) -> None:
        self.current = build
        self._former = former

    def recall(self, instance: str = "") -> Build:
        return self.current

    __call__ = recall

    def former(self, build: Build) -> str:
        return self._former.key if self._former and build is not self._former else ""

    def give_up(self, build: Build, reason: str) -> Build | None:
        if self._former is not None:
            self.current = self._former
        return self._former


@pytest.fixture
def supervisor(short_folder: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Supervisor]]:
    """``async with supervisor(build, memory=…) as s``; on the way out every child must be gone."""

    @contextlib.asynccontextmanager
    async def make(
        build: Build, former: Build | None = None, config: dict[str, Any] | None = None, **scheduler: object
    ) -> AsyncIterator[Supervisor]:
        limits = SchedulerConfig(**{"memory": 64_000 * MIB, "load_wait": 20.0, **scheduler})  # type: ignore[arg-type]
        run, state = short_folder / "run", short_folder / "state"
        run.mkdir(exist_ok=True)
        owner = Supervisor(
            Config(scheduler=limits, **(config or {})),
            Chosen(build, former),
            run=run,
            state=state,
            children_file=state / "children.json",
            card_of=model,
        )
        async with owner:
            yield owner
        assert owner.status() == ()
        assert list(run.iterdir()) == []

    return make
