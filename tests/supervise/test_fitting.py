"""The engine's own figures: asked where they matter, once, and never waited for longer than they are worth."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from llamamgr.core.config import ModelConfig
from llamamgr.core.errors import BusyError
from llamamgr.models.facts import load_header
from llamamgr.plan.events import HOST
from llamamgr.plan.memory import MIB, Files, Parts, Shape, shape_of
from llamamgr.plan.placement import NOTHING, PER_PROCESS
from llamamgr.supervise import fitting
from llamamgr.supervise.fitting import Fitting
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.wishes import Wish
from tests.supervise.conftest import TINY, model
from tests.supervise.test_memory import GIB, TWO, load, on_gpus, option, sized, two_gpus

__all__ = ["on_gpus", "two_gpus"]

TOOL = Path(__file__).parent.parent / "fakes" / "fake_fit_params.py"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch) -> Path:
    """The file that the fake tool writes its command lines to."""
    monkeypatch.setenv("FAKE_FIT_LOG", str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


@pytest.fixture
def with_tool(fake_build, calls):
    """A build whose llama-fit-params is the fake."""

    def make(devices: tuple[str, ...] = (), **more: object):
        build = fake_build(tools=("llama-server", fitting.TOOL), devices=devices, **more)
        shutil.copy(TOOL, build.tool(fitting.TOOL))
        Path(build.tool(fitting.TOOL)).chmod(0o755)
        return build

    return make


def wish(build, size: int = GIB, **settings: object) -> Wish:
    return Wish(model(size=size), build, Shape(2048, 2, 8, size), LoadOptions(), ModelConfig(**settings))  # type: ignore[arg-type]


async def test_a_real_build_tells_what_the_estimate_of_the_cache_tells(real_build):
    header = load_header(TINY)[0]
    card = model(size=TINY.stat().st_size, kv_bytes_per_token=1)
    shape = shape_of(card, 2048, 64, Files(header))
    started = time.monotonic()
    known = await Fitting().known(Wish(card, real_build, shape, LoadOptions(), ModelConfig()), {}, 0)
    assert time.monotonic() - started < 5
    base = known.alone - fitting._ALONE_SIDE
    assert shape.parts.cache + card.size <= base + 2 * MIB
    assert base <= shape.parts.cache + card.size + shape.parts.compute
    assert known.whole == {}


async def test_a_real_build_that_cannot_read_the_model_leaves_the_estimate(real_build, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    card = msgspec.structs.replace(model(), parts=(str(broken),))
    started = time.monotonic()
    known = await Fitting().known(
        Wish(card, real_build, Shape(64, 1, 0, 1), LoadOptions(), ModelConfig()), {}, 0
    )
    assert known == NOTHING
    assert time.monotonic() - started < 5  # no debugger writes a backtrace


async def test_the_figures_for_gpus_count_the_context_of_each(with_tool, calls, monkeypatch):
    monkeypatch.setenv("FAKE_FIT", "model=4000,context=500,compute=300")
    known = await Fitting().known(wish(with_tool(TWO)), {"CUDA0": 8 * GIB, "CUDA1": 8 * GIB}, 512 * MIB)
    assert known.whole["CUDA0"] == known.whole["CUDA1"] == (2001 + 251 + 151) * MIB + PER_PROCESS
    assert known.partly is None
    assert "--ctx-size 4096" in calls.read_text()
    assert "--device CUDA0,CUDA1" in calls.read_text()


async def test_projector_and_draft_are_added_to_what_the_tool_knows(with_tool, calls, monkeypatch):
    monkeypatch.setenv("FAKE_FIT", "model=100,context=0,compute=0")
    plain = wish(with_tool(TWO))
    parts = Parts(GIB, 0, 0, 0, projector=3 * MIB, draft=4 * MIB)
    more = msgspec.structs.replace(plain, shape=msgspec.structs.replace(plain.shape, parts=parts))
    bare, whole = (
        await Fitting().known(plain, {"CUDA0": GIB}, 0),
        await Fitting().known(more, {"CUDA0": GIB}, 0),
    )
    assert whole.whole["CUDA0"] - bare.whole["CUDA0"] == 7 * MIB
    assert (await Fitting().known(more, {}, 0)).alone - (await Fitting().known(plain, {}, 0)).alone == 7 * MIB


async def test_a_model_that_is_too_big_is_spread_by_the_engines_own_rule(with_tool, calls, monkeypatch):
    monkeypatch.setenv("FAKE_FIT", "model=20000,context=500,compute=300")
    known = await Fitting().known(wish(with_tool(TWO)), {"CUDA0": 8 * GIB, "CUDA1": 8 * GIB}, 512 * MIB)
    assert known.partly is not None
    assert msgspec.structs.astuple(known.partly.offload) == (18, "9,9", "blk\\.17\\.ffn_(up|down).*=CPU")
    assert known.partly.need["CUDA0"] < 8 * GIB < known.partly.need[HOST]
    assert "--fit-target 512" in calls.read_text()


async def test_while_others_are_on_the_gpus_the_tool_is_not_asked_how_to_spread(
    with_tool, calls, monkeypatch
):
    monkeypatch.setenv("FAKE_FIT", "model=20000,context=500,compute=300")
    known = await Fitting().known(wish(with_tool(TWO)), {"CUDA0": 8 * GIB}, 0, is_idle=False)
    assert known.partly is None
    assert len(calls.read_text().splitlines()) == 1


async def test_the_flags_of_a_model_that_the_tool_knows_are_passed_on(
    with_tool, calls, monkeypatch, fake_help
):
    flags = fake_help | {"--n-cpu-moe": "--n-cpu-moe"}
    build = with_tool(TWO, flags=flags)
    await Fitting().known(wish(build, flags={"n-cpu-moe": 20, "threads": 3}), {"CUDA0": GIB}, 0)
    assert "--n-cpu-moe 20" in calls.read_text()
    assert "--threads" not in calls.read_text()


@pytest.mark.parametrize("fault", ["fail", "garbage", "hang"])
async def test_a_tool_that_fails_is_asked_once_and_the_estimate_stands(
    with_tool, calls, monkeypatch, caplog, fault
):
    monkeypatch.setenv("FAKE_FIT", fault)
    monkeypatch.setattr(fitting, "_DEADLINE", 1.5)
    asked, tool = wish(with_tool()), Fitting()
    with caplog.at_level(logging.INFO):
        assert await tool.known(asked, {}, 0) == NOTHING
        assert await tool.known(asked, {}, 0) == NOTHING
    assert len(calls.read_text().splitlines()) == 1
    assert fault == "garbage" or fitting.TOOL in caplog.text


async def test_requests_that_come_together_ask_once(with_tool, calls, monkeypatch):
    monkeypatch.setenv("FAKE_FIT", "model=100,context=0,compute=0")
    asked, tool = wish(with_tool()), Fitting()
    found = await asyncio.gather(*(tool.known(asked, {}, 0) for _ in range(10)))
    assert len(calls.read_text().splitlines()) == 1
    assert {known.alone for known in found} == {found[0].alone}


async def test_a_build_without_the_tool_is_not_asked(fake_build, calls):
    assert await Fitting().known(wish(fake_build()), {}, 0) == NOTHING


# ---- in the supervisor ------------------------------------------------------------------------------------------


async def test_a_small_model_starts_without_the_tool(supervisor, with_tool, calls):
    async with supervisor(with_tool()) as owner, owner.acquire(model()):
        assert calls.read_text() == ""


async def test_an_estimate_near_the_budget_is_corrected_before_anything_is_refused(
    supervisor, with_tool, calls, monkeypatch
):
    monkeypatch.setenv("FAKE_FIT", "model=20,context=1,compute=1")
    async with supervisor(with_tool(), memory=400 * MIB) as owner:
        async with owner.acquire(model(size=900 * MIB)):  # by its estimate it is refused
            [child] = owner.status()
            assert owner._plan.children[child.id].placement.total < 300 * MIB
        monkeypatch.setenv("FAKE_FIT", "model=900,context=1,compute=1")
        with pytest.raises(BusyError, match="does not fit"):
            async with owner.acquire(model("other", size=900 * MIB)):
                pass


async def test_a_big_model_is_loaded_with_the_engines_own_options(
    two_gpus, supervisor, with_tool, monkeypatch
):
    monkeypatch.setenv("FAKE_FIT", "model=20000,context=500,compute=300")
    models = dict([sized("big", 8 * GIB)])
    async with supervisor(with_tool(TWO), config={"models": models}) as owner:
        child = await load(owner, "big", 20 * GIB)
        assert child.devices == ("CUDA0", "CUDA1")
        assert option(child.pid, "--n-gpu-layers") == "18"
        assert option(child.pid, "--tensor-split") == "9,9"
        assert option(child.pid, "--override-tensor") == "blk\\.17\\.ffn_(up|down).*=CPU"
