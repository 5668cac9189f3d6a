"""The recipes in force: shipped ones, the user's over them, and the best for a machine."""

import pytest

from llamamgr.core.errors import BuildFailedError, ConfigError, NotFoundError
from llamamgr.core.recipe import Detect, Recipe
from llamamgr.instances.recipes import Machine, build_environment, recipe_for, recipes


def machine(system: str = "Linux", tools: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> Machine:
    return Machine(
        system, lambda name, folders: name if name in tools else "", lambda pattern: pattern in files
    )


@pytest.mark.parametrize(
    ("here", "best"),
    [
        (machine(), "cpu"),
        (machine(tools=("nvcc",)), "cpu"),
        (machine(files=("/dev/nvidia[0-9]*",)), "cpu"),
        (machine(tools=("nvcc", "glslc"), files=("/dev/nvidia[0-9]*", "/dev/dri/renderD*")), "cuda"),
        (machine(tools=("hipconfig", "rocminfo"), files=("/dev/kfd",)), "rocm"),
        (machine(tools=("glslc",), files=("/dev/dri/renderD*",)), "vulkan"),
        (machine("Darwin", tools=("glslc",)), "metal"),
    ],
)
def test_auto_takes_the_best_arch_whose_tools_and_devices_are_both_here(paths, here, best):
    assert recipe_for(paths, "auto", here).name == best


def test_an_unknown_arch_is_answered_with_the_known_ones(paths):
    with pytest.raises(NotFoundError, match="cudda") as caught:
        recipe_for(paths, "cudda")
    assert "cuda" in caught.value.hint and "cpu" in caught.value.hint


def test_a_recipe_of_the_user_replaces_a_shipped_one_or_adds_to_them(paths):
    folder = paths.config / "arch"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        'name = "cpu"\ntitle = "My CPU"\npriority = 1\n[cmake]\nGGML_BLAS = "ON"\n'
    )
    (folder / "musa.toml").write_text(
        'name = "musa"\ntitle = "MUSA"\npriority = 70\n[detect]\ntools = ["mcc"]\n'
    )
    known = recipes(paths)
    assert known["cpu"].cmake_arguments() == ("-DGGML_BLAS=ON",)
    assert recipe_for(paths, "auto", machine(tools=("mcc",))).name == "musa"


def test_a_broken_recipe_is_named_with_its_file(paths):
    folder = paths.config / "arch"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('name = "mine"\nspeed = 9\n')
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        recipes(paths)


def test_a_build_environment_takes_what_a_program_says():
    recipe = Recipe("x", "X", 1, build_env={"CC": "$(echo 42 7)/clang", "PLAIN": "as is"})
    assert build_environment(recipe) == {"CC": "42 7/clang", "PLAIN": "as is"}


def test_folders_of_the_recipe_stand_at_the_end_of_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    recipe = Recipe("x", "X", 1, detect=Detect(paths=(str(tmp_path), "/no/such/folder")))
    assert build_environment(recipe) == {"PATH": f"/usr/bin:{tmp_path}"}


def test_a_program_of_a_build_environment_that_fails_is_named():
    recipe = Recipe("x", "X", 1, build_env={"CC": "$(false)/clang"})
    with pytest.raises(BuildFailedError, match="`false` of recipe 'x'"):
        build_environment(recipe)
