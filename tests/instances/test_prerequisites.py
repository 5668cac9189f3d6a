"""What a build needs: all of it named at once, with the commands, before anything begins."""

import pytest

from llamamgr.core.errors import MissingToolError
from llamamgr.core.recipe import Detect, Recipe, Requirement
from llamamgr.instances import prerequisites
from llamamgr.instances.prerequisites import is_met, require

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


def test_everything_missing_is_named_in_one_message_with_each_command_once(monkeypatch, tmp_path):
    (tmp_path / "apt-get").write_text("#!/bin/sh\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingToolError) as caught:
        require(GPU, git_needed=True)
    assert all(
        name in caught.value.what for name in ("A GPU", "C++ compiler", "git", "GPU compiler", "GPU headers")
    )
    assert caught.value.hint.split("\n      ") == [
        "sudo apt install g++",
        "sudo apt install git",
        "sudo apt install gpucc",
    ]


def test_a_system_without_a_known_package_manager_gets_general_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError) as caught:
        require(GPU, git_needed=False)
    assert (
        "GCC or clang" in caught.value.hint
        and "gpu.org" in caught.value.hint
        and "git" not in caught.value.what
    )


def test_a_machine_that_has_all_passes():
    require(Recipe("cpu", "CPU", 0), git_needed=True)


def test_a_tool_in_a_folder_of_the_recipe_counts(tmp_path):
    (tmp_path / "gpucc").write_text("#!/bin/sh\n")
    (tmp_path / "gpucc").chmod(0o755)
    assert is_met(GPU.requires[0], Recipe("gpu", "A GPU", 1, detect=Detect(paths=(str(tmp_path),))))
    assert not is_met(GPU.requires[0], GPU)


def test_files_are_found_by_pattern(tmp_path):
    (tmp_path / "vulkan").mkdir()
    (tmp_path / "vulkan" / "vulkan.h").write_text("")
    assert is_met(Requirement(reason="headers", files=(f"{tmp_path}/*/vulkan.h",)), GPU)


def test_every_base_requirement_says_what_to_type_whatever_the_system():
    needed = (getattr(prerequisites, name) for name in ("COMPILER", "GIT", "CMAKE", "NINJA", "CCACHE"))
    for requirement in needed:
        assert all(requirement.command(manager) for manager in ("apt", "dnf", "pacman", "zypper", "brew", ""))
