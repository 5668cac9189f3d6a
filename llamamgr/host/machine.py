"""The machine that a recipe asks about: its system, tools, device files and PCI devices.

``root`` is where its file system begins; tests look at a made-up one below a folder.
"""

from __future__ import annotations

import fnmatch
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llamamgr.core.errors import LlamamgrError
from llamamgr.host.compilers import Tool, compiler, examine_program, package_manager
from llamamgr.host.processes import capture

_ASK_TIMEOUT = 60.0  # seconds; the first question to a GPU driver may take most of them
_LEADING = re.compile(r"\$\{?(?P<name>\w+)\}?(?=/|\Z)")


class Machine(msgspec.Struct, frozen=True):
    """``system`` as ``platform.system()`` says it; ``package_manager`` in the words of recipes, "" when none is known."""

    system: str
    package_manager: str
    root: str = "/"

    def find(self, tool: str, folders: tuple[str, ...] = ()) -> str:
        """Absolute path of ``tool`` on PATH, else in one of ``folders``; "" when it is nowhere."""
        if found := shutil.which(tool):
            return found
        places = [place for folder in folders if (place := self._placed(folder))]
        return shutil.which(tool, path=os.pathsep.join(places)) or "" if places else ""

    def examine(self, tool: str, folders: tuple[str, ...] = ()) -> Tool | None:
        """``tool`` and its version; None when it is nowhere or does not run. ``c++`` is the compiler that CMake will take."""
        if tool == "c++":
            return compiler()
        path = self.find(tool, folders)
        return examine_program(path) if path else None

    def match(self, patterns: tuple[str, ...]) -> str:
        """The first file that any ``glob`` or ``glob=text`` of ``patterns`` matches; "" when none does."""
        for pattern in patterns:
            glob, _, text = pattern.partition("=")
            for path in self._glob(glob):
                if not text or _content(path) == text:
                    return str(path)
        return ""

    def holds(self, path: str, text: str) -> bool:
        """Whether the file has ``text`` in it."""
        return text in _content(Path(path))

    def named(self, path: str) -> str:
        """``path`` as that machine calls it."""
        return path.removeprefix(self.root.rstrip("/"))

    def folders(self, folders: tuple[str, ...]) -> list[str]:
        """Those of ``folders`` that are there, as they can be opened."""
        return [place for folder in folders if (place := self._placed(folder)) and Path(place).is_dir()]

    def pci_device(self, patterns: tuple[str, ...]) -> str:
        """The first PCI device like one of ``vendor:device`` patterns, such as ``10de:2684``; "" when there is none."""
        for folder in sorted(Path(self.root).glob("sys/bus/pci/devices/*")):
            numbers = (_content(folder / part).removeprefix("0x") for part in ("vendor", "device"))
            device = ":".join(numbers)
            if any(fnmatch.fnmatchcase(device, pattern) for pattern in patterns):
                return device
        return ""

    def ask(self, command: tuple[str, ...], folders: tuple[str, ...] = ()) -> str:
        """What ``command`` prints; "" when there is no such program or it fails."""
        path = self.find(command[0], folders) if command else ""
        if not path:
            return ""
        try:
            outcome = capture([path, *command[1:]], timeout=_ASK_TIMEOUT)
        except LlamamgrError:
            return ""
        return outcome.output if outcome.succeeded else ""

    def _glob(self, pattern: str) -> Iterator[Path]:
        if place := self._placed(pattern):
            yield from sorted(Path("/").glob(place.lstrip("/")))

    def _placed(self, pattern: str) -> str:
        """``pattern`` below ``root``; below the folder that a leading ``~`` or variable names, "" when that is not set."""
        if pattern.startswith("~/"):
            pattern = "$HOME" + pattern[1:]
        leading = _LEADING.match(pattern)
        if leading is None:
            return str(Path(self.root) / pattern.lstrip("/"))
        value = os.environ.get(leading["name"], "")
        return os.path.normpath(value + pattern[leading.end() :]) if value.startswith("/") else ""


def this_machine() -> Machine:
    return Machine(platform.system(), package_manager())


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
