"""What a build needs before it can begin, checked all at once, each thing with the command that provides it.

cmake and ninja are not among them: where they are missing they come as wheels (``tools``).
"""

from __future__ import annotations

from llamamgr.core.errors import MissingToolError
from llamamgr.core.recipe import Recipe, Requirement
from llamamgr.host.compilers import compiler, exists, find_tool, package_manager

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


def require(recipe: Recipe, *, git_needed: bool) -> None:
    """``MissingToolError`` naming everything that is missing for a build of ``recipe``, or nothing."""
    missing = [] if compiler() else [COMPILER]
    if git_needed and not find_tool("git"):
        missing.append(GIT)
    missing += [requirement for requirement in recipe.requires if not is_met(requirement, recipe)]
    if missing:
        manager = package_manager()
        names = ", ".join(requirement.reason for requirement in missing)
        commands = dict.fromkeys(requirement.command(manager) for requirement in missing)
        raise MissingToolError(
            f"a build for {recipe.title} needs what is not here: {names}", "\n      ".join(commands)
        )


def is_met(requirement: Requirement, recipe: Recipe) -> bool:
    """Whether the tool is found (also in the recipe's own folders) or any of the files is there."""
    if requirement.tool and find_tool(requirement.tool, recipe.detect.paths):
        return True
    return any(exists(pattern) for pattern in requirement.files)
