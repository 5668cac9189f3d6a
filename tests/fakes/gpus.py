"""Made-up NVIDIA GPUs: a folder that a stand-in for the driver's library, and the fake llama-server, read and write.

``GpuFarm.hold`` puts memory of any process there; a fake child with ``FAKE_VRAM`` puts its own when it loads.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "fake_nvml.c"


def compile_library(folder: Path) -> Path | None:
    """The stand-in for ``libnvidia-ml.so.1``; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-o", str(library), str(SOURCE)], check=True)
    return library


class GpuFarm:
    """GPUs below ``folder``, numbered as NVML does; sizes are bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.count = 0

    def add(self, total: int, address: str = "", uuid: str = "") -> str:
        number, self.count = self.count, self.count + 1
        uuid = uuid or f"GPU-{number:08x}-aaaa"
        place = self.folder / f"{number:02d}"
        (place / "held").mkdir(parents=True)
        (place / "uuid").write_text(uuid)
        (place / "address").write_text(address or f"00000000:{number + 1:02X}:00.0")
        (place / "total").write_text(str(total))
        return uuid

    def hold(self, number: int, pid: int, size: int) -> None:
        place = self.folder / f"{number:02d}" / "held"
        (place / f".{pid}").write_text(str(size))
        (place / f".{pid}").replace(place / str(pid))

    def release(self, pid: int) -> None:
        for file in self.folder.glob(f"*/held/{pid}"):
            file.unlink()

    def holders(self) -> set[int]:
        return {int(file.name) for file in self.folder.glob("*/held/[0-9]*")}
