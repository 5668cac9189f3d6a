"""Recipes: parsed once, with every mistake named."""

import tomllib
from pathlib import Path

import pytest

from llamamgr.core.errors import ConfigError
from llamamgr.core.recipe import PACKAGE_MANAGERS, Recipe, Requirement, parse_recipe

ARCHS = Path(__file__).parents[2] / "recipes" / "arch"


def shipped() -> dict[str, Recipe]:
    return {
        path.stem: parse_recipe(tomllib.loads(path.read_text("utf-8")), path.name)
        for path in ARCHS.glob("*.toml")
    }


def test_every_shipped_recipe_parses_and_is_named_as_its_file():
    recipes = shipped()
    assert {"cpu", "cuda", "rocm", "vulkan", "metal"} <= set(recipes)
    assert all(recipe.name == stem for stem, recipe in recipes.items())


def test_the_cpu_needs_nothing_and_is_the_last_resort():
    recipes = shipped()
    cpu = recipes.pop("cpu")
    assert not cpu.requires and not cpu.cmake and not cpu.detect.tools and not cpu.detect.devices
    assert all(recipe.priority > cpu.priority for recipe in recipes.values())


def test_every_requirement_of_a_shipped_recipe_says_what_to_type_whatever_the_system():
    for recipe in shipped().values():
        for requirement in recipe.requires:
            assert all(requirement.command(manager) for manager in (*PACKAGE_MANAGERS, "")), requirement


def test_an_unknown_key_is_named():
    with pytest.raises(ConfigError, match="priorty"):
        parse_recipe({"name": "x", "title": "X", "priority": 1, "priorty": 2}, "x.toml")


def test_a_wrong_type_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"x\.toml.*\$\.detect\.tools"):
        parse_recipe({"name": "x", "title": "X", "priority": 1, "detect": {"tools": "nvcc"}}, "x.toml")


@pytest.mark.parametrize("name", ["", "../x", "CUDA", "a b", "-x"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match="cannot name an arch"):
        parse_recipe({"name": name, "title": "X", "priority": 1}, "x.toml")


def test_a_requirement_must_name_something_to_look_for():
    with pytest.raises(ConfigError, match="neither tool nor files"):
        parse_recipe({"name": "x", "title": "X", "priority": 1, "requires": [{"reason": "luck"}]}, "x.toml")


def test_gpu_targets_go_to_the_entry_that_the_recipe_names():
    recipe = Recipe("cuda", "CUDA", 1, cmake={"GGML_CUDA": "ON"}, gpu_targets="CMAKE_CUDA_ARCHITECTURES")
    assert recipe.cmake_arguments() == ("-DGGML_CUDA=ON",)
    assert recipe.cmake_arguments("86;89") == ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=86;89")
    assert Recipe("cpu", "CPU", 0).cmake_arguments("86") == ()


def test_an_unknown_package_manager_gets_the_general_advice():
    requirement = Requirement(
        reason="thing", tool="thing", apt="sudo apt install thing", other="see thing.org"
    )
    assert requirement.command("apt") == "sudo apt install thing"
    assert requirement.command("dnf") == "see thing.org"
    assert requirement.command("name") == "see thing.org"
