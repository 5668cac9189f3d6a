"""NVIDIA's GPUs: their memory and who holds it, from the driver's library (NVML), else from ``nvidia-smi``.

The library answers in milliseconds and is opened for one reading only: held open, it would keep a laptop's GPU awake. Sources: NVML
API reference (``nvmlProcessInfo_t``, ``nvmlMemory_t``, ``nvmlPciInfo_t``) and the help of ``nvidia-smi``.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Iterator

import msgspec

LIBRARY = "libnvidia-ml.so.1"

_MIB = 1024 * 1024
_DEADLINE = 5.0
_UNTOLD = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_MOST_PROCESSES = 4096
_INSUFFICIENT_SIZE = 7  # NVML_ERROR_INSUFFICIENT_SIZE


class NvidiaGpu(msgspec.Struct, frozen=True):
    """``address`` is ``0000:01:00.0``; ``total`` and ``free`` are bytes; ``held`` bytes by process id, as the driver calls it."""

    uuid: str
    address: str
    total: int
    free: int
    held: dict[int, int] = {}


def nvidia_gpus(library: str | None = None) -> tuple[NvidiaGpu, ...]:
    """All of them in the order of their PCI addresses; none without a driver. Blocking: milliseconds, with nvidia-smi longer."""
    found = _by_library(library or LIBRARY)
    return tuple(sorted(_by_tool() if found is None else found, key=lambda gpu: gpu.address))


def pci_address(text: str) -> str:
    """``0000:01:00.0`` of NVML's ``00000000:01:00.0`` or of the kernel's own spelling."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}"


# ---- the library ------------------------------------------------------------------------------------------------


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Pci(ctypes.Structure):
    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        ("numbers", ctypes.c_uint * 5),
        ("address", ctypes.c_char * 32),
    )


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _OldProcess(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong))


_LISTS = (("_v3", _Process), ("_v2", _Process), ("", _OldProcess))


class _RefusedError(Exception):
    """NVML answered with an error, or has no such function."""


def _by_library(name: str) -> list[NvidiaGpu] | None:
    """None when there is no library, or when it knows no driver."""
    try:
        library = ctypes.CDLL(name)
        with _opened(library):
            return [_gpu(library, handle) for handle in _handles(library)]
    except (OSError, _RefusedError):
        return None


@contextlib.contextmanager
def _opened(library: ctypes.CDLL) -> Iterator[None]:
    _call(library, "nvmlInit_v2")
    try:
        yield
    finally:
        with contextlib.suppress(_RefusedError):
            _call(library, "nvmlShutdown")


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = _code(library, name, *arguments)
    if code:
        raise _RefusedError(f"{name} answered {code}")


def _code(library: ctypes.CDLL, name: str, *arguments: object) -> int:
    try:
        function = getattr(library, name)
    except AttributeError:
        raise _RefusedError(f"no {name}") from None
    return int(function(*arguments))


def _handles(library: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    """Those that this user may look at."""
    count = ctypes.c_uint()
    _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    for index in range(count.value):
        handle = ctypes.c_void_p()
        with contextlib.suppress(_RefusedError):
            _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            yield handle


def _gpu(library: ctypes.CDLL, handle: ctypes.c_void_p) -> NvidiaGpu:
    uuid, pci, memory = ctypes.create_string_buffer(96), _Pci(), _Memory()
    _call(library, "nvmlDeviceGetUUID", handle, uuid, ctypes.c_uint(len(uuid)))
    _call(library, "nvmlDeviceGetPciInfo_v3", handle, ctypes.byref(pci))
    _call(library, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    held = _holders(library, handle, "Compute")
    for pid, used in _holders(library, handle, "Graphics").items():  # Vulkan; a process may be in both lists
        held[pid] = max(used, held.get(pid, 0))
    return NvidiaGpu(
        uuid.value.decode(), pci_address(pci.address.decode()), int(memory.total), int(memory.free), held
    )


def _holders(library: ctypes.CDLL, handle: ctypes.c_void_p, kind: str) -> dict[int, int]:
    for suffix, entry in _LISTS:
        with contextlib.suppress(_RefusedError):
            return _listed(library, f"nvmlDeviceGet{kind}RunningProcesses{suffix}", handle, entry)
    return {}


def _listed(
    library: ctypes.CDLL,
    function: str,
    handle: ctypes.c_void_p,
    entry: type[_Process] | type[_OldProcess],
) -> dict[int, int]:
    room = 64
    while room <= _MOST_PROCESSES:
        count, rows = ctypes.c_uint(room), (entry * room)()
        code = _code(library, function, handle, ctypes.byref(count), rows)
        if code == 0:
            return {int(row.pid): int(row.used) for row in rows[: count.value] if row.used != _UNTOLD}
        if code != _INSUFFICIENT_SIZE:
            break
        room *= 4
    raise _RefusedError(function)


# ---- the tool ---------------------------------------------------------------------------------------------------


def _by_tool() -> list[NvidiaGpu]:
    gpus = [
        NvidiaGpu(uuid, pci_address(address), int(total) * _MIB, int(free) * _MIB, {})
        for uuid, address, total, free in _rows("--query-gpu=uuid,pci.bus_id,memory.total,memory.free", 4)
        if total.isdigit() and free.isdigit()
    ]
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    for pid, uuid, used in _rows("--query-compute-apps=pid,gpu_uuid,used_memory", 3) if gpus else ():
        if uuid in by_uuid and pid.isdigit() and used.isdigit():
            held = by_uuid[uuid].held
            held[int(pid)] = held.get(int(pid), 0) + int(used) * _MIB
    return gpus


def _rows(question: str, columns: int) -> list[list[str]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, question, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    cells = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [row for row in cells if len(row) == columns]
