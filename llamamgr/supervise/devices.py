"""Keeping a child to the GPUs that were chosen for it.

CUDA and its likes make a context, hundreds of MiB, on every GPU they see, so the others are hidden from them; what is left is
numbered anew. Vulkan and SYCL number only some of the devices that their variables count, so there the engine's ``--device``
chooses, by the very names it lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamamgr.core.config import ModelConfig
from llamamgr.host.gpus import Gpu
from llamamgr.plan.events import Placement

HIDING = {
    "CUDA": "CUDA_VISIBLE_DEVICES",
    "ROCm": "HIP_VISIBLE_DEVICES",
    "MUSA": "MUSA_VISIBLE_DEVICES",
    "CANN": "ASCEND_RT_VISIBLE_DEVICES",
}
_BY_NUMBER = {
    "Vulkan": "GGML_VK_VISIBLE_DEVICES",
    "SYCL": "ONEAPI_DEVICE_SELECTOR",
}  # for builds without --device
_PREFIX = {"SYCL": "level_zero:"}
_NONE = "-1"  # what CUDA and HIP take for no device at all


def chooses(settings: ModelConfig) -> bool:
    """The settings of a model name its devices themselves."""
    return "device" in settings.flags


def is_allowed(device: str, settings: ModelConfig) -> bool:
    """The settings of a model leave ``device`` to it."""
    return not chooses(settings) or device in str(settings.flags["device"]).split(",")


def confined(
    placement: Placement, gpus: Mapping[str, Gpu], *, has_option: bool = True
) -> tuple[dict[str, str], str]:
    """The environment of a child that lives at ``placement``, and the value of its ``--device`` ("" = say nothing)."""
    if placement.tier == "host":
        hidden = {HIDING[kind]: _NONE for kind in {_kind(name) for name in gpus} if kind in HIDING}
        return hidden, "none" if has_option else ""
    environment: dict[str, str] = {}
    named: list[str] = []
    for kind, devices in _by_kind(placement.devices).items():
        if kind in HIDING:
            environment[HIDING[kind]] = ",".join(_identity(device, gpus) for device in devices)
            named += [f"{kind}{number}" for number in range(len(devices))]
        elif kind in _BY_NUMBER and not has_option:
            environment[_BY_NUMBER[kind]] = _PREFIX.get(kind, "") + ",".join(_number(d) for d in devices)
        else:
            named += devices
    return environment, ",".join(named) if has_option else ""


def _by_kind(devices: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for device in devices:
        found.setdefault(_kind(device), []).append(device)
    return found


def _kind(device: str) -> str:
    return device.rstrip("0123456789")


def _number(device: str) -> str:
    return device[len(_kind(device)) :]


def _identity(device: str, gpus: Mapping[str, Gpu]) -> str:
    known = gpus.get(device)
    return (known.identity if known else "") or _number(device)
