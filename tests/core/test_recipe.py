"""Recipes: parsed once, with every mistake named."""

import tomllib
from pathlib import Path

import pytest

from llamamgr.core.errors import ConfigError, UsageError
from llamamgr.core.recipe import (
    PACKAGE_MANAGERS,
    Recipe,
    Requirement,
    Targets,
    extended,
    parse_recipe,
    parse_targets,
    version_numbers,
)

ARCHS = Path(__file__).parents[2] / "recipes" / "arch"
LEAST = {"name": "x", "title": "X", "priority": 1}
CUDA = Recipe(
    "cuda", "CUDA", 1, cmake={"GGML_CUDA": "ON"}, targets=Targets("ARCHITECTURES", r"\d{2}", "86;89")
)


def shipped() -> dict[str, Recipe]:
    return {
        path.stem: parse_recipe(tomllib.loads(path.read_text("utf-8")), path.name)
        for path in ARCHS.glob("*.toml")
    }


def test_every_shipped_recipe_parses_and_is_named_as_its_file():
    recipes = shipped()
    assert {"cpu", "cuda", "rocm", "vulkan", "metal", "sycl", "opencl", "musa", "cann"} <= set(recipes)
    assert all(recipe.name == stem for stem, recipe in recipes.items())


def test_the_cpu_needs_nothing_and_is_the_last_resort():
    recipes = shipped()
    cpu = recipes.pop("cpu")
    assert not cpu.requires and not cpu.cmake and not cpu.detect.devices and cpu.priority == 0
    assert all(recipe.priority != 0 for recipe in recipes.values())


def test_every_gpu_arch_says_what_it_is_for_how_it_is_seen_and_on_what_it_is_verified():
    for recipe in shipped().values():
        if not recipe.name.startswith("cpu"):
            assert recipe.hardware and recipe.verify_device and recipe.requires, recipe.name
            assert recipe.detect.devices or recipe.detect.systems == ("Darwin",), recipe.name


def test_every_requirement_of_a_shipped_recipe_says_what_to_type_whatever_the_system():
    for recipe in shipped().values():
        for requirement in recipe.requires:
            assert all(requirement.command(manager) for manager in (*PACKAGE_MANAGERS, "")), requirement


def test_the_example_of_each_shipped_recipe_is_a_list_of_its_targets():
    for recipe in shipped().values():
        if recipe.targets:
            assert ";".join(parse_targets(recipe, recipe.targets.example)) == recipe.targets.example


@pytest.mark.parametrize(
    ("arch", "target"),
    [
        ("cuda", "90a"),
        ("cuda", "75-virtual"),
        ("cuda", "native"),
        ("rocm", "gfx90a:xnack+"),
        ("rocm", "gfx11-generic"),
    ],
)
def test_targets_of_unusual_form_are_targets(arch, target):
    assert parse_targets(shipped()[arch], target) == (target,)


def test_an_unknown_key_is_named():
    with pytest.raises(ConfigError, match="priorty"):
        parse_recipe({**LEAST, "priorty": 2}, "x.toml")


def test_a_wrong_type_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"x\.toml.*\$\.detect\.devices"):
        parse_recipe({**LEAST, "detect": {"devices": "/dev/x"}}, "x.toml")


@pytest.mark.parametrize("name", ["", "../x", "CUDA", "a b", "-x"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match="cannot name an arch"):
        parse_recipe({**LEAST, "name": name}, "x.toml")


@pytest.mark.parametrize(
    ("fault", "tells"),
    [
        ({"requires": [{"reason": "luck"}]}, "neither tool nor files"),
        ({"requires": [{"reason": "luck", "files": ["/x"], "least": "1"}]}, "a version but no tool"),
        ({"requires": [{"reason": "luck", "tool": "x", "least": "new"}]}, "'new' is no version"),
        ({"cmake_least": "v3"}, "'v3' is no version"),
        ({"cmake": {"A B": "ON"}}, "'A B' names no CMake entry"),
        ({"build_env": {"A=B": "x"}}, "'A=B' names no"),
        ({"targets": {"entry": "X", "pattern": "(", "example": "1"}}, r"the pattern '\(' is wrong"),
        (
            {
                "targets": {
                    "entry": "X",
                    "pattern": "x",
                    "example": "x",
                    "ask": [{"command": ["a"], "pattern": "["}],
                }
            },
            r"the pattern '\[' is wrong",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_tried(fault, tells):
    with pytest.raises(ConfigError, match=tells):
        parse_recipe({**LEAST, **fault}, "x.toml")


def test_gpu_targets_go_to_the_entry_that_the_recipe_names():
    assert CUDA.for_targets(()).cmake_arguments() == ("-DGGML_CUDA=ON",)
    assert CUDA.for_targets(("86", "89")).cmake_arguments() == ("-DGGML_CUDA=ON", "-DARCHITECTURES=86;89")


@pytest.mark.parametrize("text", ["86;89", "86,89", "86 89", " 86; 89,86 "])
def test_gpu_targets_are_separated_by_whatever_people_type(text):
    assert parse_targets(CUDA, text) == ("86", "89")


def test_a_wrong_gpu_target_is_named_with_an_example():
    with pytest.raises(UsageError, match="'gfx1100' is no GPU target of arch cuda") as caught:
        parse_targets(CUDA, "86;gfx1100")
    assert "86;89" in caught.value.hint
    with pytest.raises(UsageError, match="has no GPU targets"):
        parse_targets(Recipe("cpu", "CPU", 0), "86")
    assert parse_targets(Recipe("cpu", "CPU", 0), "") == ()


def test_a_document_over_another_changes_tables_key_by_key_and_the_rest_whole():
    base = {"priority": 1, "cmake": {"A": "ON", "B": "ON"}, "setup": ["a", "b"]}
    change = {"priority": 2, "cmake": {"B": "OFF", "C": "ON"}, "setup": ["c"]}
    assert extended(base, change) == {
        "priority": 2,
        "cmake": {"A": "ON", "B": "OFF", "C": "ON"},
        "setup": ["c"],
    }
    assert base["cmake"] == {"A": "ON", "B": "ON"}


def test_versions_are_numbers():
    assert version_numbers("3.9") < version_numbers("3.21") < version_numbers("10")
    assert version_numbers("") < version_numbers("0.1")


def test_an_unknown_package_manager_gets_the_general_advice():
    requirement = Requirement(
        reason="thing", tool="thing", apt="sudo apt install thing", other="see thing.org"
    )
    assert requirement.command("apt") == "sudo apt install thing"
    assert requirement.command("dnf") == "see thing.org"
    assert requirement.command("name") == "see thing.org"
