"""GPU memory, from stand-ins for the driver's library and tool and from copies of the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamamgr.host import nvidia
from llamamgr.host.drm import AmdGpu, amd_gpus, held_on
from llamamgr.host.gpus import Gpu, gpus, held_anywhere, listed
from llamamgr.host.nvidia import nvidia_gpus
from tests.fakes.gpus import GpuFarm

MIB = 1024 * 1024
SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) printf 'GPU-b, 00000000:41:00.0, 24564, 20000\\nGPU-a, 00000000:01:00.0, 8192, [N/A]\\n';;
  --query-compute-apps=*) printf '77, GPU-b, 300\\n77, GPU-b, 200\\n78, GPU-b, [N/A]\\n';;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(nvidia, "LIBRARY", str(tmp_path / "none.so"))
    return tmp_path


def tool(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)


def test_the_drivers_library_tells_memory_and_its_holders(farm: GpuFarm):
    farm.add(24 * MIB)
    farm.hold(0, 77, 5 * MIB)
    farm.hold(0, 78, MIB)
    [gpu] = nvidia_gpus()
    assert (gpu.address, gpu.total, gpu.free) == ("0000:01:00.0", 24 * MIB, 18 * MIB)
    assert gpu.held == {77: 5 * MIB, 78: MIB}


def test_more_holders_than_there_was_room_for_are_asked_for_again(farm: GpuFarm):
    farm.add(10_000)
    for pid in range(1, 101):
        farm.hold(0, pid, 1)
    assert len(nvidia_gpus()[0].held) == 100


def test_devices_are_numbered_by_their_pci_addresses(farm: GpuFarm):
    late, early = farm.add(MIB, "00000000:81:00.0"), farm.add(2 * MIB, "00000000:02:00.0")
    found = gpus(environment={})
    assert [found[name].identity for name in ("CUDA0", "CUDA1")] == [early, late]


@pytest.mark.parametrize(
    ("shown", "names"),
    [("1", ["GPU-two"]), ("GPU-tw,0", ["GPU-two", "GPU-one"]), ("0,7,1", ["GPU-one"]), ("-1", []), ("", [])],
)
def test_what_the_environment_hides_is_not_counted_and_its_order_holds(farm: GpuFarm, shown, names):
    farm.add(MIB, uuid="GPU-one")
    farm.add(MIB, uuid="GPU-two")
    found = gpus(environment={"CUDA_VISIBLE_DEVICES": shown})
    assert [gpu.identity for gpu in found.values()] == names
    assert list(found) == [f"CUDA{number}" for number in range(len(names))]


def test_a_library_without_a_driver_gives_way_to_the_tool(farm: GpuFarm, tmp_path: Path, monkeypatch):
    farm.add(MIB)
    (farm.folder / "broken").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool(tmp_path, SMI)
    assert [gpu.uuid for gpu in nvidia_gpus()] == ["GPU-b"]


def test_the_tool_tells_memory_and_its_holders_where_there_is_no_library(tools: Path):
    tool(tools, SMI)
    assert gpus(environment={}, root=tools) == {
        "CUDA0": Gpu("CUDA0", 24564 * MIB, 20000 * MIB, "GPU-b", "0000:41:00.0", {77: 500 * MIB})
    }


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho garbage\n"])
def test_a_tool_that_fails_tells_nothing(tools: Path, script: str):
    tool(tools, script)
    assert gpus(environment={}, root=tools) == {}


# ---- the kernel's files -----------------------------------------------------------------------------------------


def card(root: Path, number: int, address: str, total: int, used: object) -> None:
    device = root / "sys/devices/pci0000:00" / address
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text(f"{total}\n")
    (device / "mem_info_vram_used").write_text(f"{used}\n")
    for name in (f"card{number}", f"renderD{128 + number}"):
        place = root / "sys/class/drm" / name
        place.mkdir(parents=True)
        (place / "device").symlink_to(device)


def node(root: Path, number: int, *, minor: int, unique: int, gpu_id: int) -> None:
    place = root / f"sys/class/kfd/kfd/topology/nodes/{number}"
    place.mkdir(parents=True)
    simd = 128 if minor else 0
    (place / "properties").write_text(
        f"cpu_cores_count 0\nsimd_count {simd}\ndrm_render_minor {minor}\nunique_id {unique}\n"
    )
    (place / "gpu_id").write_text(f"{gpu_id}\n")


def fdinfo(root: Path, pid: int, descriptor: int, text: str) -> None:
    folder = root / f"proc/{pid}/fdinfo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(descriptor)).write_text(text)


def test_amd_devices_come_from_the_kernel_by_address(tmp_path: Path):
    card(tmp_path, 0, "0000:0c:00.0", 16, 4)
    card(tmp_path, 1, "0000:03:00.0", 32, 2)
    card(tmp_path, 2, "0000:09:00.0", 8, "nonsense")
    assert amd_gpus(tmp_path) == (AmdGpu("0000:03:00.0", 32, 30), AmdGpu("0000:0c:00.0", 16, 12))


def test_amd_devices_are_numbered_as_the_compute_driver_does_and_its_cpus_are_none(tmp_path: Path):
    card(tmp_path, 0, "0000:0c:00.0", 16, 4)
    card(tmp_path, 1, "0000:03:00.0", 32, 2)
    node(tmp_path, 0, minor=0, unique=0, gpu_id=0)
    node(tmp_path, 1, minor=128, unique=0xABC, gpu_id=11)
    node(tmp_path, 2, minor=129, unique=0xDEF, gpu_id=22)
    found = gpus(root=tmp_path, environment={})
    assert [found[name].address for name in ("ROCm0", "ROCm1")] == ["0000:0c:00.0", "0000:03:00.0"]
    hidden = gpus(root=tmp_path, environment={"ROCR_VISIBLE_DEVICES": "GPU-0000000000000def"})
    assert [(gpu.name, gpu.address, gpu.identity) for gpu in hidden.values()] == [
        ("ROCm0", "0000:03:00.0", "0")
    ]
    second = gpus(root=tmp_path, environment={"HIP_VISIBLE_DEVICES": "1"})
    assert [(gpu.name, gpu.identity) for gpu in second.values()] == [("ROCm0", "1")]


def test_what_a_process_holds_for_computing_is_in_the_compute_drivers_account(tmp_path: Path):
    card(tmp_path, 0, "0000:03:00.0", 32, 2)
    node(tmp_path, 1, minor=128, unique=1, gpu_id=4711)
    account = tmp_path / "sys/class/kfd/kfd/proc/77"
    account.mkdir(parents=True)
    (account / "vram_4711").write_text("9000\n")
    fdinfo(tmp_path, 77, 5, "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t1\ndrm-memory-vram:\t2 KiB\n")
    assert gpus([77], root=tmp_path, environment={})["ROCm0"].held == {77: 9000}


def test_a_client_that_is_open_twice_is_counted_once_and_regions_add_up(tmp_path: Path):
    one = "drm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\n"
    vram = "drm-total-vram0:\t40 KiB\ndrm-resident-vram0:\t24 KiB\ndrm-resident-vram1:\t1 MiB\ndrm-resident-gtt:\t9 MiB\n"
    fdinfo(tmp_path, 77, 5, one + vram)
    fdinfo(tmp_path, 77, 6, one + vram)
    fdinfo(tmp_path, 77, 7, "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t4\ndrm-memory-vram:\t100\n")
    fdinfo(tmp_path, 77, 0, "pos:\t0\nflags:\t02\n")
    assert held_on(77, (), tmp_path) == {"0000:03:00.0": 24 * 1024 + MIB + 100}
    assert held_anywhere(77, tmp_path) == 24 * 1024 + MIB + 100
    assert held_on(78, (), tmp_path) == {}


def test_an_engines_own_list_tells_what_the_system_does_not():
    lines = (
        "Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24000 MiB free)",
        "BLAS: OpenBLAS (0 MiB, 0 MiB free)",
        "MTL0: Apple M2 (21845 MiB, 21845 MiB free)",
        "nonsense",
    )
    assert listed(lines) == {"Vulkan0": Gpu("Vulkan0", 24560 * MIB, 24000 * MIB)}
