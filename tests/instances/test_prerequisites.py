"""What a build needs: all of it named at once, with the commands, before anything begins."""

import msgspec
import pytest

from llamamgr.core.errors import MissingToolError
from llamamgr.core.recipe import Detect, Recipe, Requirement
from llamamgr.host.machine import Machine
from llamamgr.instances import prerequisites
from llamamgr.instances.prerequisites import look_for, require

GPU = Recipe(
    "gpu",
    "A GPU",
    1,
    requires=(
        Requirement(reason="GPU compiler", tool="gpucc", apt="sudo apt install gpucc", other="see gpu.org"),
        Requirement(
            reason="GPU headers", files=("/no/such/*.h",), apt="sudo apt install gpucc", other="see gpu.org"
        ),
    ),
)


def test_everything_missing_is_named_in_one_message_with_one_command(monkeypatch, tmp_path):
    (tmp_path / "apt-get").write_text("#!/bin/sh\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingToolError) as caught:
        require(GPU, git_needed=True)
    assert all(
        name in caught.value.what for name in ("A GPU", "C++ compiler", "git", "GPU compiler", "GPU headers")
    )
    assert caught.value.hint == "sudo apt install g++ git gpucc"


def test_a_system_without_a_known_package_manager_gets_general_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError) as caught:
        require(GPU, git_needed=False)
    assert (
        "GCC or clang" in caught.value.hint
        and "gpu.org" in caught.value.hint
        and "git" not in caught.value.what
    )


def test_a_machine_that_has_all_passes_and_the_same_without_its_tools_does_not(monkeypatch, tmp_path):
    cpu = Recipe("cpu", "CPU", 0)
    assert all(need.is_met for need in look_for(cpu, Machine("Linux", "apt", "/")).needs)
    require(cpu, git_needed=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="git"):
        require(cpu, git_needed=True)


def needs(recipe: Recipe, root) -> list[bool]:
    return [need.is_met for need in look_for(recipe, Machine("Linux", "apt", str(root))).needs]


def test_a_tool_in_a_folder_of_the_recipe_counts(tmp_path):
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "gpucc").write_text("#!/bin/sh\n")
    (tmp_path / "opt" / "gpucc").chmod(0o755)
    assert needs(GPU, tmp_path) == [False, False]
    assert needs(msgspec.structs.replace(GPU, detect=Detect(paths=("/opt",))), tmp_path) == [True, False]


def test_files_are_found_by_pattern_and_by_what_they_hold(tmp_path):
    (tmp_path / "vulkan").mkdir()
    (tmp_path / "vulkan" / "vulkan.h").write_text("1.3\n")
    for pattern, met in (("/*/vulkan.h", True), ("/*/vulkan.h=1.3", True), ("/*/vulkan.h=1.4", False)):
        headers = Requirement(reason="headers", files=(pattern,))
        assert needs(Recipe("x", "X", 1, requires=(headers,)), tmp_path) == [met]


def test_a_tool_or_else_a_file_is_enough(tmp_path):
    (tmp_path / "header").write_text("")
    either = Requirement(reason="either", tool="no-such-tool", files=("/header",))
    assert needs(Recipe("x", "X", 1, requires=(either,)), tmp_path) == [True]


def test_the_advice_that_is_no_command_follows_the_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    parts = (
        Requirement(reason="a", tool="a", apt="sudo apt install a"),
        Requirement(reason="b", tool="b", other="see b.org"),
        Requirement(reason="c", tool="c", apt="sudo apt install c a"),
    )
    sighting = look_for(Recipe("x", "X", 1, requires=parts), Machine("Linux", "apt", str(tmp_path)))
    assert sighting.command == "sudo apt install a c; see b.org"


def test_every_base_requirement_says_what_to_type_whatever_the_system():
    needed = (getattr(prerequisites, name) for name in ("COMPILER", "GIT", "CMAKE", "NINJA", "CCACHE"))
    for requirement in needed:
        assert all(requirement.command(manager) for manager in ("apt", "dnf", "pacman", "zypper", "brew", ""))
