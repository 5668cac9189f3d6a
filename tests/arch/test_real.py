"""Recipes on the real llama.cpp: configured by CMake where the toolkit is here, and plugins put where the server looks for them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import filelock
import pytest

from llamamgr.core.recipe import Recipe
from llamamgr.host.environments import laid_over
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Order, collect, configure_command
from llamamgr.instances.build_plan import build_plan
from llamamgr.instances.prerequisites import look_for
from llamamgr.instances.recipes import recipe_for
from llamamgr.instances.sources import Tree
from llamamgr.instances.tools import build_tools
from tests.arch.machines import MACHINES
from tests.arch.real_tree import real_tree
from tests.conftest import _cache

# What CMake says when it has taken the backend in, and a cache entry that only the recipe sets.
TELLS = {
    "cpu": ("Including CPU backend", "GGML_NATIVE:BOOL=ON"),
    "cpu-portable": (
        "ggml-cpu-sapphirerapids|ggml-cpu-armv9|ggml-cpu-power10|ggml-cpu-z15",
        "GGML_BACKEND_DL:BOOL=ON",
    ),
    "cpu-openblas": ("Including BLAS backend", "GGML_BLAS_VENDOR:STRING=OpenBLAS"),
}
PORTABLE = "libggml-cpu-x64.so"

# Loads the backends as llama-server does, from the folder of the program, and names those that came.
LOADER = """
#include "ggml-backend.h"
#include <cstdio>
int main() {
    ggml_backend_load_all();
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) puts(ggml_backend_dev_name(ggml_backend_dev_get(i)));
}
"""


@pytest.fixture(scope="module")
def tree() -> Tree:
    return real_tree(_cache())


def configure(recipe: Recipe, tree: Tree, folder: Path) -> str:
    """Configure ``tree`` by ``recipe`` as an install does; CMake's output."""
    paths = Paths.of_environment()
    tools = build_tools(paths, lambda line: None, lambda line: None, cmake_least=recipe.cmake_least)
    order = Order(recipe.cmake_arguments(), rpc=False, jobs=2)
    done = subprocess.run(
        configure_command(tree, order, tools, folder),
        env=laid_over(os.environ, recipe.build_env),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize("arch", MACHINES)
def test_cmake_takes_what_the_recipe_says(arch, tree, tmp_path):
    recipe = recipe_for(Paths.of_environment(), arch)
    sighting = look_for(recipe)
    if any(not need.found for need in sighting.missing):  # what is too old to compile configures all the same
        pytest.skip(f"{recipe.title} cannot be built here: {sighting.why}")
    planned = build_plan(recipe).recipe
    said = configure(planned, tree, tmp_path / "build")
    backend = next((key.removeprefix("GGML_") for key in planned.cmake if key.startswith("GGML_")), "")
    tells, entry = TELLS.get(arch, (f"Including {backend} backend", f"GGML_{backend}:BOOL=ON"))
    assert re.search(tells, said, re.IGNORECASE), said
    assert entry in (tmp_path / "build" / "CMakeCache.txt").read_text()


@pytest.mark.real
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the plugin that is built here is one for x86-64")
def test_plugins_of_a_portable_build_lie_where_its_programs_load_them_from(tree, tmp_path):
    folder = _cache() / f"portable-{tree.number}"
    with filelock.FileLock(f"{folder}.lock", timeout=600):
        if not (folder / "bin" / PORTABLE).is_file():
            recipe = build_plan(recipe_for(Paths.of_environment(), "cpu-portable")).recipe
            configure(recipe, tree, folder)
            subprocess.run(["ninja", "-C", folder, f"bin/{PORTABLE}"], check=True, stdout=subprocess.DEVNULL)
    built = tmp_path / "build"
    shutil.copytree(folder / "bin", built / "bin", symlinks=True)
    shutil.copy(folder / "CMakeCache.txt", built)
    _loader(tree.folder, built / "bin")
    collect(built, tree.folder, tmp_path / "made", ("loader",))
    assert (tmp_path / "made" / "bin" / PORTABLE).is_file()
    shutil.rmtree(built)
    done = subprocess.run(
        [tmp_path / "made" / "bin" / "loader"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["CPU"], done.stderr


def _loader(tree: Path, folder: Path) -> None:
    """llama.cpp's own loading code in a small program, with the run path that builds of ours have."""
    source = folder.parent / "loader.cpp"
    source.write_text(LOADER)
    parts = [tree / "ggml" / "src" / name for name in ("ggml-backend-reg.cpp", "ggml-backend-dl.cpp")]
    include = (f"-I{tree / 'ggml' / 'include'}", f"-I{tree / 'ggml' / 'src'}")
    link = (f"-L{folder}", "-lggml-base", "-ldl", "-Wl,-rpath,$ORIGIN:$ORIGIN/../lib")
    command = ["c++", "-std=c++17", "-O1", "-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED", "-DGGML_SHARED"]
    subprocess.run([*command, *include, source, *parts, *link, "-o", folder / "loader"], check=True)
