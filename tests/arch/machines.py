"""Made-up machines: a folder that stands for a file system, and small programs that answer as the real ones do."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from llamamgr.host.machine import Machine
from llamamgr.instances.prerequisites import COMPILER

NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release 13.0, V13.0.88
Build cuda_13.0.r13.0/compiler.36424714_0"""

ROCMINFO = """ROCk module version 6.10.5 is loaded
HSA System Attributes
==========
HSA Agents
==========
*******
Agent 1
*******
  Name:                    AMD Ryzen 9 7950X 16-Core Processor
  Marketing Name:          AMD Ryzen 9 7950X 16-Core Processor
*******
Agent 2
*******
  Name:                    gfx1201
  Marketing Name:          AMD Radeon RX 9070 XT
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx1201
*******
Agent 3
*******
  Name:                    gfx1100
*******
Agent 4
*******
  Name:                    gfx1201"""

# As the real one: it reads its arguments, talks on stdout, and refuses to run twice.
SETVARS = """
if [ -n "$1" ]; then echo "unknown option $1"; return 2; fi
if [ "${SETVARS_COMPLETED:-}" = 1 ]; then echo "setvars.sh has already been run"; return 3; fi
echo ":: initializing oneAPI environment ..."
export SETVARS_COMPLETED=1
export ONEAPI_ROOT=/opt/intel/oneapi
export CMPLR_ROOT=/opt/intel/oneapi/compiler/2025.2
export MKLROOT=/opt/intel/oneapi/mkl/2025.2
export PATH="$CMPLR_ROOT/bin:$PATH"
export LD_LIBRARY_PATH="$MKLROOT/lib:$CMPLR_ROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CPATH="$MKLROOT/include"
echo ":: oneAPI environment initialized ::"
"""

# As the real one: its last test fails, and so does `source`.
SET_ENV = """
export ASCEND_TOOLKIT_HOME=/usr/local/Ascend/cann
export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$ASCEND_TOOLKIT_HOME/lib64/plugin:$LD_LIBRARY_PATH
export ASCEND_OPP_PATH=$ASCEND_TOOLKIT_HOME/opp
[ -d /no/such/folder ] && export NEVER=1
"""

# Variables by which toolkits are found; those of the machine that runs the tests must not count.
TOOLKIT_VARIABLES = (
    "CUDA_HOME",
    "CUDA_PATH",
    "ROCM_PATH",
    "VULKAN_SDK",
    "ONEAPI_ROOT",
    "CMPLR_ROOT",
    "MKLROOT",
    "MUSA_PATH",
    "ASCEND_TOOLKIT_HOME",
    "OCL_ICD_VENDORS",
    "CXX",
    "LD_LIBRARY_PATH",
    "CPATH",
    "SETVARS_COMPLETED",
)


class FakeMachine:
    """A machine below ``root``: ``program``, ``file`` and ``pci`` put things there, ``seen`` is what a recipe asks."""

    def __init__(self, root: Path, system: str = "Linux", package_manager: str = "apt") -> None:
        self.root = root
        self.seen = Machine(system, package_manager, str(root))
        self.file("home/user/.profile")
        self.path.mkdir(parents=True)
        (self.path / "bash").symlink_to(shutil.which("bash") or "/bin/bash")

    @property
    def path(self) -> Path:
        """The one folder on PATH."""
        return self.root / "usr" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in TOOLKIT_VARIABLES}
        return kept | {"PATH": str(self.path), "HOME": str(self.root / "home" / "user")}

    def file(self, name: str, text: str = "") -> Path:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name: str, says: str | Mapping[str, str]) -> None:
        """``name``: a path, or a program on PATH. ``says``: its output, for ``--version`` or for each of its command lines."""
        answers = {"--version": says} if isinstance(says, str) else says
        cases = "".join(
            f"{shlex.quote(words)}) printf '%s\\n' {shlex.quote(text)};;\n" for words, text in answers.items()
        )
        path = self.file(
            name if "/" in name else f"usr/bin/{name}", f'#!/bin/sh\ncase "$*" in\n{cases}*) exit 1;;\nesac\n'
        )
        path.chmod(0o755)

    def pci(self, vendor: str, device: str) -> None:
        folder = f"sys/bus/pci/devices/0000:0{len(list(self.root.glob('sys/bus/pci/devices/*')))}:00.0"
        self.file(f"{folder}/vendor", f"0x{vendor}\n")
        self.file(f"{folder}/device", f"0x{device}\n")

    def render_node(self, vendor: str) -> None:
        """What the kernel shows of a GPU whose driver is loaded."""
        self.file("dev/dri/renderD128")
        self.file("sys/class/drm/renderD128/device/vendor", f"0x{vendor}\n")


def cpu(machine: FakeMachine) -> None:
    machine.program(COMPILER.tool, "c++ (Debian 14.2.0-19) 14.2.0")


def cpu_openblas(machine: FakeMachine) -> None:
    cpu(machine)
    machine.file("usr/include/x86_64-linux-gnu/openblas-pthread/cblas.h")
    machine.program("pkg-config", "1.8.1")


def cuda(machine: FakeMachine) -> None:
    machine.program("usr/local/cuda/bin/nvcc", NVCC)
    machine.file("usr/local/cuda/targets/x86_64-linux/include/cublas_v2.h")
    machine.program("nvidia-smi", {"--query-gpu=compute_cap --format=csv,noheader": "8.9\n12.0\n8.9"})
    machine.file("dev/nvidia0")
    machine.pci("10de", "2684")


def rocm(machine: FakeMachine) -> None:
    answers = {"--version": "6.4.43483-a187df25c", "-l": "/opt/rocm/llvm/bin", "-R": "/opt/rocm"}
    machine.program("opt/rocm/bin/hipconfig", answers)
    machine.program("opt/rocm/bin/rocminfo", {"": ROCMINFO})
    for library in ("hipblas", "rocblas"):
        machine.file(f"opt/rocm/lib/cmake/{library}/{library}-config.cmake")
    machine.file("dev/kfd")
    machine.pci("1002", "744c")


def vulkan(machine: FakeMachine) -> None:
    machine.program(
        "glslc",
        "shaderc v2023.8 v2023.8\nspirv-tools v2023.6 unknown hash\nglslang 11.1.0\n\nTarget: SPIR-V 1.0",
    )
    machine.file("usr/include/vulkan/vulkan_core.h", "#define VK_EXT_layer_settings 1\n")
    machine.file("usr/share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake")
    machine.file("usr/share/vulkan/icd.d/radeon_icd.x86_64.json")
    machine.render_node("1002")


def sycl(machine: FakeMachine) -> None:
    compiler = "Intel(R) oneAPI DPC++/C++ Compiler 2025.2.0 (2025.2.0.20250605)"
    machine.program("opt/intel/oneapi/compiler/latest/bin/icpx", compiler)
    machine.file("opt/intel/oneapi/mkl/latest/lib/cmake/mkl/MKLConfig.cmake")
    machine.file("opt/intel/oneapi/setvars.sh", SETVARS)
    machine.render_node("8086")


def opencl(machine: FakeMachine) -> None:
    machine.file("usr/include/CL/cl.h")
    machine.file("usr/lib/aarch64-linux-gnu/libOpenCL.so")
    machine.file("etc/OpenCL/vendors/qcom.icd")
    machine.program("python3", "Python 3.13.5")
    machine.file("dev/kgsl-3d0")


def musa(machine: FakeMachine) -> None:
    machine.program("usr/local/musa/bin/mcc", "mcc version 4.2.0 (http://git) 5d3f4a2")
    machine.file("usr/local/musa/bin/clang++")
    machine.file("dev/mtgpu.0")
    machine.pci("1ed5", "0327")


def cann(machine: FakeMachine) -> None:
    machine.file("usr/local/Ascend/cann/set_env.sh", SET_ENV)
    machine.program("usr/local/bin/npu-smi", {"-v": "npu-smi version: 25.2.0"})
    machine.file("dev/davinci0")
    machine.pci("19e5", "d802")


def metal(machine: FakeMachine) -> None:
    machine.program("xcrun", "xcrun version 72.")


SYSTEMS = {"metal": ("Darwin", "brew")}
MACHINES: dict[str, Callable[[FakeMachine], None]] = {
    "cann": cann,
    "cpu": cpu,
    "cpu-openblas": cpu_openblas,
    "cpu-portable": cpu,
    "cuda": cuda,
    "metal": metal,
    "musa": musa,
    "opencl": opencl,
    "rocm": rocm,
    "sycl": sycl,
    "vulkan": vulkan,
}


def fake_machine(arch: str, root: Path) -> FakeMachine:
    """A machine that has all that ``arch`` asks for, and nothing else."""
    machine = FakeMachine(root, *SYSTEMS.get(arch, ()))
    MACHINES[arch](machine)
    return machine
