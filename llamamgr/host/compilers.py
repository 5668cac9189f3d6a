"""The tools that build, and the machine they build on: finding them, asking their versions, naming who provides them."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from llamamgr.core.errors import LlamamgrError
from llamamgr.host.processes import capture

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_COMPILERS = ("c++", "g++", "clang++")
_MANAGERS = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman", "zypper": "zypper", "brew": "brew"}
_PROBE = (
    '#include <filesystem>\n#include <string>\nint main() { return std::string("x").size() == 1 ? 0 : 1; }\n'
)
_BYTES_PER_JOB = 1536 * 1024 * 1024  # what the largest translation units of llama.cpp take in a Release build


class Tool(msgspec.Struct, frozen=True):
    """A program found: absolute ``path``, ``version`` as dotted numbers ("" = it did not say), its ``line`` of ``--version``."""

    path: str
    version: str
    line: str

    def is_at_least(self, *wanted: int) -> bool:
        """Whether the version is ``wanted`` or newer; one that did not say counts as old."""
        return tuple(int(part) for part in self.version.split(".") if part) >= wanted


def find_tool(name: str, folders: tuple[str, ...] = ()) -> str:
    """Absolute path of ``name`` on PATH, else in one of ``folders``; "" when it is nowhere."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders) or os.devnull) or ""


def examine(name: str, folders: tuple[str, ...] = ()) -> Tool | None:
    """The tool ``name`` and its version; None when it is not there or cannot even say its version."""
    path = find_tool(name, folders)
    return examine_program(path) if path else None


def examine_program(path: str) -> Tool | None:
    """The program ``path`` and its version; None when it cannot even say that."""
    try:
        outcome = capture([path, "--version"], timeout=20.0)
    except (LlamamgrError, OSError):
        return None
    line = next((line for line in outcome.output.splitlines() if _VERSION.search(line)), "")
    version = _VERSION.search(line)
    return Tool(path, version[0] if version else "", line.strip()) if outcome.succeeded else None


def compiler() -> Tool | None:
    """The C++ compiler that CMake will take: ``CXX``, else the first of c++, g++, clang++."""
    wanted = os.environ.get("CXX", "").split()
    return next((tool for name in (*wanted[:1], *_COMPILERS) if (tool := examine(name)) is not None), None)


def wheel_tool(name: str, least: tuple[int, ...] = ()) -> Tool | None:
    """``cmake`` or ``ninja`` from their wheels in this environment."""
    spec = importlib.util.find_spec(name)
    places = (spec.submodule_search_locations or []) if spec else []
    tool = examine_in(
        name, (str(Path(sys.executable).parent), *(str(Path(place) / "data" / "bin") for place in places))
    )
    return tool if tool is not None and tool.is_at_least(*least) else None


def examine_in(name: str, folders: tuple[str, ...]) -> Tool | None:
    """As ``examine``, but only in ``folders``."""
    path = shutil.which(name, path=os.pathsep.join(folders))
    return examine_program(path) if path else None


def exists(pattern: str) -> bool:
    """Whether the absolute glob ``pattern`` matches anything."""
    return any(True for _ in Path("/").glob(pattern.lstrip("/")))


def package_manager() -> str:
    """The system's package manager in the words of recipes: apt, dnf, pacman, zypper, brew, or ""."""
    return next((word for word, program in _MANAGERS.items() if shutil.which(program)), "")


def processor() -> str:
    """The CPU's own name: a native build does not run on another kind."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def parallel_jobs() -> int:
    """How many compilers to run at once: one for each CPU we may use, as far as memory reaches."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(psutil.virtual_memory().available // _BYTES_PER_JOB)))


def compile_fault(program: str) -> str:
    """Why the C++ compiler ``program`` cannot compile a small C++17 program; "" when it can."""
    with tempfile.TemporaryDirectory(prefix="llamamgr-") as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(_PROBE, "utf-8")
        try:
            outcome = capture([program, "-std=c++17", "-o", f"{folder}/probe", str(source)], timeout=60.0)
        except (LlamamgrError, OSError) as error:
            return str(error)
    return (
        ""
        if outcome.succeeded
        else (outcome.output.strip().splitlines() or [f"exit status {outcome.code}"])[0]
    )


def free_space(folder: Path) -> int:
    """Bytes free on the disk of ``folder``, which may not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free
