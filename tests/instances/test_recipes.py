"""The recipes in force: shipped ones, the user's over them, and broken ones set apart."""

import pytest

from llamamgr.core.errors import ConfigError, NotFoundError
from llamamgr.host.machine import Machine
from llamamgr.instances.recipes import choose, recipe_for, recipes, shelf, users_folder


@pytest.fixture
def machine(tmp_path) -> Machine:
    """One with nothing at all."""
    return Machine("Linux", "apt", str(tmp_path / "root"))


@pytest.fixture
def write(paths):
    """Put a recipe of the user's there."""

    def written(name: str, text: str) -> None:
        users_folder(paths).mkdir(parents=True, exist_ok=True)
        (users_folder(paths) / name).write_text(text)

    return written


def test_an_unknown_arch_is_answered_with_the_known_ones(paths):
    with pytest.raises(NotFoundError, match="cudda") as caught:
        recipe_for(paths, "cudda")
    assert "cuda" in caught.value.hint and "cpu" in caught.value.hint


def test_recipes_are_listed_best_first(paths):
    priorities = [recipe.priority for recipe in recipes(paths).values()]
    assert priorities == sorted(priorities, reverse=True)


def test_a_machine_with_nothing_builds_for_its_cpu(paths, machine):
    choice = choose(paths, "auto", machine)
    assert choice.recipe.name == "cpu" and choice.passed_over == ()


def test_a_recipe_of_the_user_adds_to_the_shipped_ones(paths, machine, write):
    write("npu.toml", 'title = "An NPU"\npriority = 95\n[cmake]\nGGML_NPU = "ON"\n')
    assert choose(paths, "auto", machine).recipe.name == "npu"
    assert shelf(paths).files["npu"].endswith("npu.toml")


def test_a_recipe_of_the_user_replaces_a_shipped_one_whole(paths, write):
    write("mine.toml", 'name = "cuda"\ntitle = "Mine"\npriority = 1\n[cmake]\nGGML_MINE = "ON"\n')
    assert recipes(paths)["cuda"].cmake_arguments() == ("-DGGML_MINE=ON",)
    assert recipes(paths)["cuda"].requires == ()


def test_a_recipe_may_extend_a_shipped_one_of_its_own_name_or_another(paths, write):
    shipped = recipes(paths)["cuda"]
    write("cuda.toml", 'extends = "cuda"\n[cmake]\nGGML_CUDA_FORCE_MMQ = "ON"\n')
    write("cuda-old.toml", 'extends = "cuda"\npriority = -1\n[runtime_env]\nCUDA_VISIBLE_DEVICES = "0"\n')
    known = recipes(paths)
    assert known["cuda"].cmake == shipped.cmake | {"GGML_CUDA_FORCE_MMQ": "ON"}
    assert known["cuda"].requires == shipped.requires and known["cuda"].priority == shipped.priority
    assert known["cuda-old"].cmake == known["cuda"].cmake  # the user's cuda is the one that is extended
    assert known["cuda-old"].priority == -1 and known["cuda-old"].runtime_env == {"CUDA_VISIBLE_DEVICES": "0"}


def test_one_below_zero_is_taken_only_when_it_is_named(paths, machine, write):
    write("slow.toml", 'title = "Slow"\npriority = -5\n')
    assert choose(paths, "auto", machine).recipe.name == "cpu"
    assert choose(paths, "slow", machine).recipe.title == "Slow"


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ('name = "mine"\nspeed = 9\n', "speed"),
        ("this is no TOML", "mine.toml"),
        ('extends = "nothing"\n', "extends 'nothing', which there is not"),
        ('extends = "cuda"\npriority = "high"\n', r"\$\.priority"),
    ],
)
def test_a_broken_recipe_is_named_with_its_file_and_hides_no_other(paths, machine, write, text, tells):
    write("mine.toml", text)
    write("good.toml", 'title = "Good"\npriority = 7\n')
    known = shelf(paths)
    assert [broken.arch for broken in known.broken] == ["mine"]
    assert known.broken[0].file.endswith("mine.toml") and "mine.toml" in known.broken[0].error.what
    assert {"cuda", "cpu", "good"} <= set(known.recipes) and "mine" not in known.recipes
    assert choose(paths, "auto", machine).recipe.name == "good"
    with pytest.raises(ConfigError, match=tells):
        choose(paths, "mine", machine)


def test_a_broken_recipe_never_gives_way_to_the_shipped_one_of_its_name(paths, machine, write):
    write("cpu.toml", 'extends = "cpu"\nspeed = 9\n')
    for arch in ("cpu", "auto"):
        with pytest.raises(ConfigError, match=r"cpu\.toml"):
            choose(paths, arch, machine)


def test_recipes_that_extend_each_other_are_broken(paths, write):
    write("a.toml", 'extends = "b"\n')
    write("b.toml", 'extends = "a"\n')
    known = shelf(paths)
    assert {broken.arch for broken in known.broken} == {"a", "b"}
    assert all("extend each other" in broken.error.what for broken in known.broken)


def test_two_files_for_one_name_are_told(paths, write):
    write("one.toml", 'name = "x"\ntitle = "One"\npriority = 1\n')
    write("two.toml", 'name = "x"\ntitle = "Two"\npriority = 1\n')
    known = shelf(paths)
    assert known.recipes["x"].title == "One"
    assert "one.toml" in known.broken[0].error.what and "two.toml" in known.broken[0].error.what
