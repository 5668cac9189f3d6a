"""GPU memory, from a stand-in for nvidia-smi and a copy of the kernel's files."""

from pathlib import Path

import pytest

from llamamgr.host.gpus import GpuMemory, gpu_memory, held_by

MIB = 1024 * 1024
SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) printf '0, 24564, 20000\\n1, 24564, [N/A]\\n';;
  --query-compute-apps=*) printf '77, 300\\n77, 200\\n78, 5\\n';;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_nvidia_devices_are_named_as_the_engine_names_them(tools: Path):
    (tools / "nvidia-smi").write_text(SMI)
    (tools / "nvidia-smi").chmod(0o755)
    assert gpu_memory(tools) == {"CUDA0": GpuMemory(24564 * MIB, 20000 * MIB)}
    assert held_by(77) == 500 * MIB


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho garbage\n"])
def test_a_tool_that_fails_tells_nothing(tools: Path, script: str):
    (tools / "nvidia-smi").write_text(script)
    (tools / "nvidia-smi").chmod(0o755)
    assert gpu_memory(tools) == {}
    assert held_by(77) == 0


def test_amd_devices_come_from_the_kernel(tmp_path: Path):
    for card, used in (("card0", 4), ("card1", "nonsense")):
        device = tmp_path / card / "device"
        device.mkdir(parents=True)
        (device / "mem_info_vram_total").write_text("16\n")
        (device / "mem_info_vram_used").write_text(f"{used}\n")
    assert gpu_memory(tmp_path)["ROCm0"] == GpuMemory(16, 12)
    assert "ROCm1" not in gpu_memory(tmp_path)
