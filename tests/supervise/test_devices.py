"""Keeping a child to its GPUs."""

from __future__ import annotations

import pytest

from llamamgr.host.gpus import Gpu
from llamamgr.plan.events import HOST, Placement
from llamamgr.supervise.devices import confined

GPUS = {
    "CUDA0": Gpu("CUDA0", 1, 1, "GPU-a"),
    "CUDA1": Gpu("CUDA1", 1, 1, "GPU-b"),
    "ROCm1": Gpu("ROCm1", 1, 1, "3"),
}


def at(*devices: str) -> Placement:
    return Placement(dict.fromkeys(devices, 1), devices)


@pytest.mark.parametrize(
    ("devices", "environment", "option"),
    [
        (("CUDA1",), {"CUDA_VISIBLE_DEVICES": "GPU-b"}, "CUDA0"),
        (("CUDA1", "CUDA0"), {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}, "CUDA0,CUDA1"),
        (("ROCm1",), {"HIP_VISIBLE_DEVICES": "3"}, "ROCm0"),
        (("MUSA1",), {"MUSA_VISIBLE_DEVICES": "1"}, "MUSA0"),
        (("Vulkan1",), {}, "Vulkan1"),
        (("SYCL0", "SYCL1"), {}, "SYCL0,SYCL1"),
        ((), {}, ""),
    ],
)
def test_a_child_sees_its_own_gpus_and_calls_them_by_what_it_sees(devices, environment, option):
    assert confined(at(*devices), GPUS) == (environment, option)


@pytest.mark.parametrize(
    ("devices", "environment"),
    [
        (("CUDA1",), {"CUDA_VISIBLE_DEVICES": "GPU-b"}),
        (("Vulkan1",), {"GGML_VK_VISIBLE_DEVICES": "1"}),
        (("SYCL0", "SYCL1"), {"ONEAPI_DEVICE_SELECTOR": "level_zero:0,1"}),
    ],
)
def test_a_build_without_the_option_is_told_by_the_environment_alone(devices, environment):
    assert confined(at(*devices), GPUS, has_option=False) == (environment, "")


def test_a_child_in_main_memory_sees_no_gpu():
    alone = Placement({HOST: 1}, (), "host")
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}
    assert confined(alone, GPUS) == (hidden, "none")
    assert confined(alone, {}) == ({}, "none")
