"""What is here of an arch, and what a build needs before it can begin, each missing thing with the command that provides it.

cmake and ninja are not among them: where they are missing or too old they come as wheels (``tools``).
"""

from __future__ import annotations

import msgspec

from llamamgr.core.errors import MissingToolError
from llamamgr.core.recipe import Recipe, Requirement, version_numbers
from llamamgr.host.machine import Machine, this_machine

COMPILER = Requirement(
    reason="C++ compiler",
    tool="c++",
    apt="sudo apt install g++",
    dnf="sudo dnf install gcc-c++",
    pacman="sudo pacman -S gcc",
    zypper="sudo zypper install gcc-c++",
    brew="xcode-select --install",
    other="install GCC or clang with C++17",
)
GIT = Requirement(
    reason="git",
    tool="git",
    apt="sudo apt install git",
    dnf="sudo dnf install git",
    pacman="sudo pacman -S git",
    zypper="sudo zypper install git",
    brew="brew install git",
    other="install it from https://git-scm.com",
)
CMAKE = Requirement(
    reason="cmake",
    tool="cmake",
    apt="sudo apt install cmake",
    dnf="sudo dnf install cmake",
    pacman="sudo pacman -S cmake",
    zypper="sudo zypper install cmake",
    brew="brew install cmake",
    other="pip install cmake",
)
NINJA = Requirement(
    reason="ninja",
    tool="ninja",
    apt="sudo apt install ninja-build",
    dnf="sudo dnf install ninja-build",
    pacman="sudo pacman -S ninja",
    zypper="sudo zypper install ninja",
    brew="brew install ninja",
    other="pip install ninja",
)
CCACHE = Requirement(
    reason="ccache",
    tool="ccache",
    apt="sudo apt install ccache",
    dnf="sudo dnf install ccache",
    pacman="sudo pacman -S ccache",
    zypper="sudo zypper install ccache",
    brew="brew install ccache",
    other="install it from https://ccache.dev",
)


# How a package manager is told to install; what follows can be said of several packages at once.
_INSTALLERS = (
    "sudo apt install ",
    "sudo dnf install ",
    "sudo pacman -S ",
    "sudo zypper install ",
    "brew install ",
)


class Need(msgspec.Struct, frozen=True):
    """One requirement on one machine: what was ``found`` ("" = nothing), and its ``fault`` ("" = it is met)."""

    requirement: Requirement
    found: str = ""
    fault: str = ""

    @property
    def is_met(self) -> bool:
        return not self.fault

    def command(self, package_manager: str) -> str:
        """What to type. Where an old version is here already, the package manager has no better one: the general advice."""
        needed = self.requirement
        return (self.found and needed.other) or needed.command(package_manager)


class Sighting(msgspec.Struct, frozen=True):
    """What is here of an arch.

    ``hardware`` names the sign of it ("" = none is seen, or the arch needs none), ``lack`` is why the hardware cannot be used, and
    ``needs`` are the build's requirements in the recipe's order.
    """

    recipe: Recipe
    hardware: str
    lack: str
    needs: tuple[Need, ...]
    package_manager: str = ""

    @property
    def is_complete(self) -> bool:
        """The hardware works and everything for building is here."""
        return not self.lack and self.can_build

    @property
    def can_build(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> tuple[Need, ...]:
        return tuple(need for need in self.needs if not need.is_met)

    @property
    def command(self) -> str:
        """What to type for all that is missing, in one line; "" when nothing is."""
        return "; ".join(commands(self.missing, self.package_manager))

    @property
    def why(self) -> str:
        """Why it is complete or not, in one sentence."""
        if self.is_complete:
            found = [need.found for need in self.needs if need.requirement.tool]
            return ", ".join(filter(None, (self.hardware, *found))) or "needs nothing special"
        here = self.lack or (f"{self.hardware} is here" if self.hardware else "")
        missing = ", ".join(_fault_text(need) for need in self.missing)
        return "; ".join(filter(None, (here, f"missing: {missing}" if missing else "")))


def look_for(recipe: Recipe, machine: Machine | None = None) -> Sighting:
    """What ``machine`` has of ``recipe``: hardware, driver, and each thing that a build needs."""
    seen = machine or this_machine()
    hardware, lack = _hardware(recipe, seen)
    needs = tuple(_need(requirement, recipe, seen) for requirement in recipe.requires)
    return Sighting(recipe, hardware, lack, needs, seen.package_manager)


def require(recipe: Recipe, *, git_needed: bool, machine: Machine | None = None) -> None:
    """``MissingToolError`` naming everything that is missing for a build of ``recipe``, or nothing."""
    seen = machine or this_machine()
    sighting = look_for(recipe, seen)
    needs = [Need(COMPILER, fault="" if seen.examine("c++") else "not found")]
    if git_needed:
        needs.append(Need(GIT, fault="" if seen.find("git") else "not found"))
    missing = tuple(need for need in (*needs, *sighting.needs) if not need.is_met)
    if missing:
        names = ", ".join(_fault_text(need) for need in missing)
        note = f" ({sighting.lack})" if sighting.lack else ""
        raise MissingToolError(
            f"a build for {recipe.title} needs what is not here: {names}{note}",
            "\n      ".join(commands(missing, seen.package_manager)),
        )


def commands(missing: tuple[Need, ...], package_manager: str) -> tuple[str, ...]:
    """What to type for all of ``missing``: one command for each package manager, then the advice that is no command."""
    gathered: dict[str, list[str]] = {}
    advice: list[str] = []
    for need in missing:
        command = need.command(package_manager)
        installer = next((start for start in _INSTALLERS if command.startswith(start)), "")
        if installer:
            gathered.setdefault(installer, []).extend(command.removeprefix(installer).split())
        elif command:
            advice.append(command)
    installs = (installer + " ".join(dict.fromkeys(names)) for installer, names in gathered.items())
    return tuple(dict.fromkeys((*installs, *advice)))


def _hardware(recipe: Recipe, machine: Machine) -> tuple[str, str]:
    """The sign of the arch's hardware, and what keeps it from being used."""
    detect, wanted = recipe.detect, recipe.hardware or "device of this kind"
    if detect.systems and machine.system not in detect.systems:
        return "", f"only on {' or '.join(detect.systems)}"
    device = machine.named(machine.match(detect.devices))
    if device and detect.drivers and not machine.match(detect.drivers):
        return device, f"{device} is here, but no {recipe.title} driver for programs ({detect.drivers[0]})"
    if device or not detect.devices:
        return device, ""
    pci = machine.pci_device(detect.pci)
    if pci:
        nodes = ", ".join(detect.devices)
        return f"PCI {pci}", f"PCI device {pci} is here, but its driver is not ({nodes})"
    return "", f"no {wanted} is seen here"


def _need(requirement: Requirement, recipe: Recipe, machine: Machine) -> Need:
    tool = _tool(requirement, recipe, machine) if requirement.tool else None
    if tool is not None and tool.is_met:
        return tool
    return _file(requirement, machine) or tool or Need(requirement, fault="not found")


def _file(requirement: Requirement, machine: Machine) -> Need | None:
    """By the first file that has what it must hold, else by the first there is."""
    lacking = None
    for pattern in requirement.files:
        if path := machine.match((pattern,)):
            file = machine.named(path)
            if not requirement.holds or machine.holds(path, requirement.holds):
                return Need(requirement, found=file)
            lacking = lacking or Need(requirement, file, f"{file} is too old: without {requirement.holds}")
    return lacking


def _tool(requirement: Requirement, recipe: Recipe, machine: Machine) -> Need | None:
    if not machine.find(requirement.tool, recipe.detect.paths):
        return None
    tool = machine.examine(requirement.tool, recipe.detect.paths)
    version = tool.version if tool else ""
    found = f"{requirement.tool} {version}".strip()
    if version_numbers(version) < version_numbers(requirement.least):
        return Need(
            requirement, found, f"{version} is too old" if version else "it does not tell its version"
        )
    return Need(requirement, found)


def _fault_text(need: Need) -> str:
    reason = need.requirement.reason
    least = f" {need.requirement.least} or newer" if need.requirement.least else ""
    return f"{reason}{least}" if not need.found else f"{reason}{least} ({need.fault})"
