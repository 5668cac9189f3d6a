"""Memory on made-up GPUs: where children go, what is measured, and what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import psutil
import pytest

from llamamgr.core.config import ModelConfig, SchedulerConfig
from llamamgr.core.errors import BusyError
from llamamgr.plan.events import HOST
from llamamgr.supervise import gauge, memory
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.supervisor import Supervisor
from tests.fakes.gpus import GpuFarm
from tests.supervise.conftest import MIB, model
from tests.supervise.test_supervisor import until

GIB = 1024 * MIB
TWO = ("CUDA0: Made-up GPU (8192 MiB, 8192 MiB free)", "CUDA1: Made-up GPU (8192 MiB, 8192 MiB free)")


def sized(name: str, size: int, **more: object) -> tuple[str, ModelConfig]:
    """Settings of a model whose child takes ``size`` of the GPUs."""
    return name, ModelConfig(env={"FAKE_VRAM": str(size)}, parallel=1, **more)  # type: ignore[arg-type]


@pytest.fixture
def two_gpus(farm: GpuFarm) -> GpuFarm:
    farm.add(8 * GIB, "00000000:02:00.0", "GPU-second")
    farm.add(8 * GIB, "00000000:01:00.0", "GPU-first")  # CUDA0, by its address
    return farm


@pytest.fixture
def on_gpus(supervisor, fake_build, farm: GpuFarm):
    """``async with on_gpus(sized(…), …) as s``: a supervisor with models of known sizes."""

    @contextlib.asynccontextmanager
    async def make(
        *models: tuple[str, ModelConfig], faults: str = "", devices=TWO, **limits: object
    ) -> AsyncIterator[Supervisor]:
        build = fake_build(faults, devices=devices)
        async with supervisor(build, config={"models": dict(models)}, **limits) as owner:
            yield owner

    return make


async def load(owner: Supervisor, name: str, size: int, **more: object):
    """A child of a model of ``size``, idle."""
    async with asyncio.timeout(20), owner.acquire(model(name, size=size, **more)) as lease:
        return next(child for child in owner.status() if child.id == lease.child)


def environment(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def option(pid: int, name: str) -> str:
    words = psutil.Process(pid).cmdline()
    return words[words.index(name) + 1] if name in words else ""


async def test_each_model_gets_a_gpu_of_its_own_and_one_that_needs_both_is_split(two_gpus, on_gpus):
    models = (sized("a", 5 * GIB), sized("b", 5 * GIB), sized("c", 10 * GIB))
    async with on_gpus(*models) as owner:
        first, second = await load(owner, "a", 5 * GIB), await load(owner, "b", 5 * GIB)
        assert (first.devices, second.devices) == (("CUDA0",), ("CUDA1",))
        assert environment(first.pid)["CUDA_VISIBLE_DEVICES"] == "GPU-first"
        assert environment(second.pid)["CUDA_VISIBLE_DEVICES"] == "GPU-second"
        assert environment(first.pid)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert option(second.pid, "--device") == "CUDA0"  # the one it sees
        both = await load(owner, "c", 10 * GIB)
        assert [child.id for child in owner.status()] == [both.id]
        assert environment(both.pid)["CUDA_VISIBLE_DEVICES"] == "GPU-first,GPU-second"
        shares = [int(share) for share in option(both.pid, "--tensor-split").split(",")]
        assert shares[0] == shares[1] > 4000
        assert option(both.pid, "--fit-target") == "512"


async def test_what_other_programs_hold_is_not_planned_with(two_gpus, on_gpus):
    two_gpus.hold(1, 999_999, 6 * GIB)  # CUDA0
    async with on_gpus(sized("a", 5 * GIB)) as owner:
        assert (await load(owner, "a", 5 * GIB)).devices == ("CUDA1",)


async def test_gpus_that_the_daemon_may_not_see_are_not_used(two_gpus, on_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-second")
    async with on_gpus(sized("a", 5 * GIB), devices=TWO[:1]) as owner:
        child = await load(owner, "a", 5 * GIB)
        assert child.devices == ("CUDA0",)
        assert environment(child.pid)["CUDA_VISIBLE_DEVICES"] == "GPU-second"
        assert two_gpus.holders() == {child.pid}


async def test_a_model_that_no_gpu_holds_spreads_into_main_memory(two_gpus, on_gpus):
    async with on_gpus(sized("big", 12 * GIB)) as owner:
        child = await load(owner, "big", 30 * GIB)
        assert child.devices == ("CUDA0", "CUDA1")
        assert option(child.pid, "--tensor-split") == ""  # the engine's own fitting spreads it


async def test_a_child_kept_off_the_gpus_sees_none(two_gpus, on_gpus):
    async with on_gpus(sized("a", GIB)) as owner:
        wanted = model("a", size=GIB)
        async with owner.acquire(wanted, LoadOptions(gpu_layers=0)):
            [child] = owner.status()
            assert option(child.pid, "--device") == "none"
            assert environment(child.pid)["CUDA_VISIBLE_DEVICES"] == "-1"
            assert two_gpus.holders() == set()


async def test_what_a_child_took_of_each_gpu_is_told_and_replaces_the_estimate(two_gpus, on_gpus):
    async with on_gpus(sized("a", 2 * GIB)) as owner:
        await load(owner, "a", 6 * GIB)
        await until(lambda: owner.status()[0].memory_devices == {"CUDA0": 2 * GIB})
        assert owner.status()[0].memory_gpu == 2 * GIB
        await owner.unload(model("a", size=6 * GIB))
        await until(lambda: owner.status() == ())
        again = await load(owner, "a", 6 * GIB)
        assert owner._plan.children[again.id].placement.need["CUDA0"] == 2 * GIB


async def test_where_the_driver_knows_other_process_numbers_the_difference_tells(
    two_gpus, on_gpus, monkeypatch
):
    monkeypatch.setenv("FAKE_NVML_PIDS", "host")
    async with on_gpus(sized("a", 2 * GIB), sized("b", 5 * GIB)) as owner:
        await load(owner, "a", 6 * GIB)
        await until(lambda: owner.status()[0].memory_devices == {"CUDA0": 2 * GIB})
        assert owner._memory.gauge.foreign["CUDA0"] == 0
        second = await load(owner, "b", 5 * GIB)
        await until(lambda: {c.id: c for c in owner.status()}[second.id].memory_devices == {"CUDA1": 5 * GIB})


async def test_the_next_start_waits_for_memory_that_a_driver_frees_late(two_gpus, on_gpus):
    models = (sized("a", 10 * GIB), sized("b", 10 * GIB))
    async with on_gpus(*models, faults="keep-vram") as owner, asyncio.TaskGroup() as tasks:
        first = await load(owner, "a", 10 * GIB)
        waiting = tasks.create_task(load(owner, "b", 10 * GIB))
        await until(lambda: first.id in owner._plan.residues)
        assert not psutil.pid_exists(first.pid)
        assert owner.status() == ()  # memory is not free, so nothing is started
        budget = owner._plan.budget["CUDA0"]
        with pytest.raises(BusyError, match="does not fit"):
            await load(owner, "huge", 200 * GIB)
        assert owner._plan.budget["CUDA0"] == budget  # what is on its way counts as ours
        two_gpus.release(first.pid)
        second = await waiting
        assert two_gpus.holders() == {second.pid}
        await owner.unload(model("b", size=10 * GIB))
        await until(lambda: owner.status() == ())
        two_gpus.release(second.pid)


async def test_memory_that_is_never_freed_is_waited_for_with_a_bound_and_a_warning(
    two_gpus, on_gpus, monkeypatch, caplog
):
    monkeypatch.setattr(memory, "WAIT_SECONDS", 0.3)
    models = (sized("a", 5 * GIB), sized("b", 1 * GIB, flags={"device": "CUDA1"}))
    async with on_gpus(*models, faults="keep-vram", devices=TWO) as owner:
        first = await load(owner, "a", 5 * GIB)
        await owner.unload(model("a", size=5 * GIB))
        with caplog.at_level(logging.WARNING):
            await until(lambda: first.id not in owner._plan.children and not owner._plan.residues)
        assert "still not free" in caplog.text


async def test_a_child_that_is_loading_is_not_counted_as_memory_to_be_had(two_gpus, on_gpus):
    only, models = TWO[:1], (sized("a", 5 * GIB), sized("b", 5 * GIB))
    async with on_gpus(*models, faults="slow-load=0.5", devices=only) as owner, asyncio.TaskGroup() as tasks:
        tasks.create_task(load(owner, "a", 5 * GIB))
        await until(lambda: [child.state for child in owner.status()] == ["loading"])
        owner._memory.gauge._read_at = 0.0
        second = tasks.create_task(load(owner, "b", 5 * GIB))
        await until(
            lambda: any(
                d.key.model != c.key.model
                for d in owner._plan.waiting.values()
                for c in owner._plan.children.values()
            )
        )
        assert len(owner.status()) == 1
        assert owner._plan.budget["CUDA0"] < 8 * GIB
        assert (await second).devices == ("CUDA0",)


async def test_a_crashed_childs_memory_is_waited_for_too(two_gpus, on_gpus):
    async with on_gpus(sized("a", 5 * GIB)) as owner:
        first = await load(owner, "a", 5 * GIB)
        await until(lambda: owner._memory.gauge.held(owner._running[first.id]))  # measured once it is ready
        psutil.Process(first.pid).kill()
        await until(lambda: first.id in owner._plan.residues)
        two_gpus.release(first.pid)
        await until(lambda: not owner._plan.residues)
        assert (await load(owner, "a", 5 * GIB)).devices == ("CUDA0",)


async def test_while_a_model_waits_for_room_what_other_programs_hold_is_looked_at_again(two_gpus, on_gpus):
    models = (sized("a", 5 * GIB), sized("b", 3 * GIB))
    async with on_gpus(*models, devices=TWO[:1]) as owner, asyncio.TaskGroup() as tasks:
        async with owner.acquire(model("a", size=5 * GIB)):
            waiting = tasks.create_task(load(owner, "b", 3 * GIB))
            await until(lambda: owner._plan.waiting)
            two_gpus.hold(1, 999_999, GIB)
            await until(lambda: owner._plan.budget["CUDA0"] < 7 * GIB)
        assert (await waiting).devices == ("CUDA0",)


async def test_devices_that_only_the_engine_sees_are_read_from_its_own_list(farm, on_gpus, monkeypatch):
    monkeypatch.setenv("FAKE_GPU_KIND", "Vulkan")
    monkeypatch.setattr("llamamgr.host.nvidia.LIBRARY", "none.so")
    farm.add(8 * GIB)
    farm.add(8 * GIB)
    farm.hold(0, 999_999, 6 * GIB)
    devices = (
        "Vulkan0: Made-up GPU (8192 MiB, 2048 MiB free)",
        "Vulkan1: Made-up GPU (8192 MiB, 8192 MiB free)",
    )
    async with on_gpus(sized("a", 5 * GIB), devices=devices) as owner:
        child = await load(owner, "a", 5 * GIB)
        assert child.devices == ("Vulkan1",)
        assert option(child.pid, "--device") == "Vulkan1"
        assert "GGML_VK_VISIBLE_DEVICES" not in environment(child.pid)


async def test_a_device_that_the_settings_name_is_left_to_them(two_gpus, on_gpus):
    async with on_gpus(sized("a", GIB, flags={"device": "CUDA1"})) as owner:
        child = await load(owner, "a", GIB)
        assert child.devices == ("CUDA1",)
        assert "CUDA_VISIBLE_DEVICES" not in environment(child.pid)
        assert two_gpus.holders() == {child.pid}
        assert (two_gpus.folder / "00" / "held" / str(child.pid)).exists()


async def test_a_driver_that_surprises_keeps_no_model_from_starting(two_gpus, on_gpus, monkeypatch, caplog):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("what is this")

    async with on_gpus(sized("a", GIB), sized("b", GIB)) as owner:
        assert (await load(owner, "a", GIB)).devices == ("CUDA0",)
        monkeypatch.setattr("llamamgr.supervise.gauge.gpus", broken)
        owner._memory.gauge._read_at = 0.0
        assert (await load(owner, "b", GIB)).devices == ("CUDA1",)
        assert "could not be read" in caplog.text


async def test_what_another_program_frees_is_not_taken_for_what_a_child_held(two_gpus, on_gpus):
    two_gpus.hold(1, 999_999, 2 * GIB)
    async with on_gpus(sized("a", GIB), devices=TWO[:1], faults="keep-vram") as owner:
        first = await load(owner, "a", GIB)
        await owner.unload(model("a", size=GIB))
        await until(lambda: first.id in owner._plan.residues)
        two_gpus.release(999_999)
        for _ in range(3):
            seen = owner._memory.gauge._read_at
            await until(lambda: owner._memory.gauge._read_at != seen)  # noqa: B023 - awaited here
        assert first.id in owner._plan.residues
        two_gpus.release(first.pid)
        await until(lambda: not owner._plan.residues)


def test_mapped_files_of_children_are_not_counted_twice_as_available(monkeypatch):
    monkeypatch.setattr(gauge.host_memory, "available", lambda: 100 * GIB)
    monkeypatch.setattr(gauge.host_memory, "unshared", {7: 2 * GIB, 8: GIB}.__getitem__)
    budget = gauge.Gauge().budget(SchedulerConfig(reserve=GIB), [7, 8])
    assert budget == {HOST: 102 * GIB}
