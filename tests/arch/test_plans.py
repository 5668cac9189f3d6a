"""Every arch on a made-up machine that has it: what is seen, what a build gets, and how its servers run."""

from pathlib import Path

import pytest

from llamamgr.cli.recipe_text import describe
from llamamgr.core.errors import BuildFailedError, MissingToolError, UsageError
from llamamgr.core.recipe import Detect, Recipe
from llamamgr.host.paths import Paths
from llamamgr.instances.build_plan import build_plan, targets_here
from llamamgr.instances.prerequisites import look_for, require
from llamamgr.instances.recipes import choose, recipe_for, recipes
from tests.arch.machines import MACHINES, FakeMachine, cpu, cuda, rocm, sycl, vulkan

EXPECTED = Path(__file__).parent / "expected"


def recipe(arch: str) -> Recipe:
    return recipe_for(Paths.of_environment(), arch)


def plan_text(arch: str, machine: FakeMachine) -> str:
    """What ``llamamgr recipes show`` prints on ``machine``, its folder left out."""
    sighting = look_for(recipe(arch), machine.seen)
    lines = describe(sighting, build_plan(sighting.recipe, machine=machine.seen))
    return "\n".join(lines).replace(str(machine.root), "") + "\n"


def test_every_shipped_recipe_has_a_machine_and_an_expected_plan():
    assert set(recipes(Paths.of_environment())) == set(MACHINES) == {path.stem for path in EXPECTED.iterdir()}


@pytest.mark.parametrize("arch", MACHINES)
def test_the_full_plan_of_each_arch_is_the_expected_one(arch, make):
    assert plan_text(arch, make(arch)) == (EXPECTED / f"{arch}.txt").read_text("utf-8")


@pytest.mark.parametrize("arch", [name for name in MACHINES if not name.startswith("cpu-")])
def test_auto_takes_the_arch_that_is_all_there_and_says_why(arch, make):
    machine = make(arch)
    choice = choose(Paths.of_environment(), "auto", machine.seen)
    assert choice.recipe.name == arch
    assert choice.why in (EXPECTED / f"{arch}.txt").read_text("utf-8")


def test_the_better_of_two_is_taken(make):
    machine = make("vulkan")
    cuda(machine)
    assert choose(Paths.of_environment(), "auto", machine.seen).recipe.name == "cuda"


def test_a_gpu_without_its_toolkit_is_told_with_what_to_type(make):
    machine = make("cpu")
    machine.file("dev/nvidia0")
    choice = choose(Paths.of_environment(), "auto", machine.seen)
    assert choice.recipe.name == "cpu"
    assert any(
        "cuda is not taken: /dev/nvidia0 is here; missing: CUDA compiler, cuBLAS" in line
        and "sudo apt install nvidia-cuda-toolkit, then llamamgr install --arch cuda" in line
        for line in choice.passed_over
    )


def test_headers_that_are_too_old_are_told_with_what_they_lack(make):
    machine = make("vulkan")
    machine.file("usr/include/vulkan/vulkan_core.h", "#define VK_HEADER_VERSION 239\n")
    sighting = look_for(recipe("vulkan"), machine.seen)
    assert not sighting.can_build
    assert (
        "Vulkan headers (/usr/include/vulkan/vulkan_core.h is too old: without VK_EXT_layer_settings)"
        in sighting.why
    )
    assert sighting.command == "install the Vulkan SDK from https://vulkan.lunarg.com"
    machine.file("usr/local/include/vulkan/vulkan_core.h", "#define VK_EXT_layer_settings 1\n")
    assert look_for(recipe("vulkan"), machine.seen).can_build


def test_a_gpu_whose_driver_is_not_loaded_is_known_by_its_pci_number(make):
    machine = make("rocm")
    (machine.root / "dev" / "kfd").unlink()
    sighting = look_for(recipe("rocm"), machine.seen)
    assert sighting.can_build and not sighting.is_complete
    assert "PCI device 1002:744c is here, but its driver is not (/dev/kfd)" in sighting.why
    assert choose(Paths.of_environment(), "auto", machine.seen).recipe.name == "cpu"


def test_a_gpu_without_the_part_of_its_driver_that_programs_load_is_not_taken(make):
    machine = make("vulkan")
    next((machine.root / "usr/share/vulkan/icd.d").iterdir()).unlink()
    assert "no Vulkan driver for programs" in look_for(recipe("vulkan"), machine.seen).why
    assert choose(Paths.of_environment(), "auto", machine.seen).recipe.name == "cpu"


def test_a_gpu_of_another_maker_is_no_intel_gpu(make):
    machine = make("sycl")
    machine.render_node("1002")
    assert "no Intel GPU is seen here" in look_for(recipe("sycl"), machine.seen).why


def test_a_gpu_seen_through_wsl_counts(make):
    machine = make("cuda")
    (machine.root / "dev" / "nvidia0").rename(machine.root / "dev" / "dxg")
    assert look_for(recipe("cuda"), machine.seen).is_complete


def test_a_toolkit_that_is_too_old_is_named_with_both_versions_and_where_newer_ones_are(make):
    machine = make("rocm")
    machine.program("opt/rocm/bin/hipconfig", {"--version": "5.7.31921-", "-l": "x", "-R": "x"})
    with pytest.raises(
        MissingToolError, match=r"HIP of ROCm 6\.1 or newer \(5\.7\.31921 is too old\)"
    ) as caught:
        require(recipe("rocm"), git_needed=False, machine=machine.seen)
    assert (
        "https://rocm.docs.amd.com" in caught.value.hint and "apt" not in caught.value.hint.splitlines()[-1]
    )


def test_versions_are_compared_as_numbers(make):
    machine = make("cpu")
    portable = recipe("cpu-portable")
    for version, fits in (("9.4.0", False), ("10.2.1", False), ("11.1.0", True), ("14.2.0", True)):
        machine.program("c++", f"c++ (Debian {version}) {version}")
        assert look_for(portable, machine.seen).can_build == fits, version


def test_without_an_arch_s_toolkit_everything_missing_is_one_message_with_one_command(make):
    machine = make("cpu")
    with pytest.raises(MissingToolError) as caught:
        require(recipe("rocm"), git_needed=True, machine=machine.seen)
    assert all(
        word in caught.value.what for word in ("git", "HIP of ROCm 6.1", "hipBLAS", "rocBLAS", "no AMD GPU")
    )
    assert caught.value.hint == "sudo apt install git hipcc libhipblas-dev librocblas-dev"


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt", "sudo apt install glslc libvulkan-dev spirv-headers"),
        ("dnf", "sudo dnf install glslc vulkan-headers vulkan-loader-devel spirv-headers-devel"),
        ("pacman", "sudo pacman -S shaderc vulkan-headers vulkan-icd-loader spirv-headers"),
        ("zypper", "sudo zypper install shaderc vulkan-devel spirv-headers"),
        ("", "install the Vulkan SDK from https://vulkan.lunarg.com"),
    ],
)
def test_each_package_manager_gets_its_own_command(make, manager, command):
    machine = make(package_manager=manager)
    cpu(machine)
    with pytest.raises(MissingToolError) as caught:
        require(recipe("vulkan"), git_needed=False, machine=machine.seen)
    assert caught.value.hint == command


def test_gpu_targets_are_those_in_the_machine_unless_others_are_asked_for(make):
    machine = make("cuda").seen
    assert (
        "-DCMAKE_CUDA_ARCHITECTURES=89;120"
        in build_plan(recipe("cuda"), machine=machine).recipe.cmake_arguments()
    )
    asked = build_plan(recipe("cuda"), "86, 90a-real", machine)
    assert "-DCMAKE_CUDA_ARCHITECTURES=86;90a-real" in asked.recipe.cmake_arguments()
    assert asked.targets_from == "--gpu-targets"


def test_gpu_targets_come_from_the_next_program_where_one_is_missing_or_knows_nothing(make):
    machine = make("rocm")
    assert targets_here(recipe("rocm"), machine.seen) == (("gfx1201", "gfx1100"), "rocminfo")
    machine.program("opt/rocm/bin/rocminfo", {"nothing": ""})
    machine.program("opt/rocm/llvm/bin/amdgpu-arch", {"": "gfx90a"})
    assert targets_here(recipe("rocm"), machine.seen) == (("gfx90a",), "amdgpu-arch")
    (machine.root / "opt/rocm/llvm/bin/amdgpu-arch").unlink()
    machine.program("opt/rocm/bin/rocm_agent_enumerator", {"": "gfx000\ngfx942"})
    assert targets_here(recipe("rocm"), machine.seen) == (("gfx942",), "rocm_agent_enumerator")


def test_without_a_gpu_cuda_is_built_for_the_usual_ones_for_native_would_fail(make):
    machine = make("cuda")
    (machine.path / "nvidia-smi").unlink()
    plan = build_plan(recipe("cuda"), machine=machine.seen)
    assert "90-virtual" in plan.targets and "no GPU is seen" in plan.targets_from


@pytest.mark.parametrize(
    ("arch", "targets"),
    [
        ("cuda", "gfx1100"),
        ("cuda", "8.9"),
        ("rocm", "1100"),
        ("cann", "Ascend910B3;Ascend310P3"),
        ("vulkan", "86"),
    ],
)
def test_targets_that_an_arch_has_not_are_refused_with_an_example(make, arch, targets):
    with pytest.raises(UsageError, match=arch):
        build_plan(recipe(arch), targets, make(arch).seen)


def test_what_a_setup_script_adds_goes_before_what_the_environment_has(make, monkeypatch):
    machine = make("sycl")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/users/own")
    monkeypatch.setenv("SETVARS_COMPLETED", "1")  # the user has sourced it: what it set must still be learnt
    final = build_plan(recipe("sycl"), machine=machine.seen).recipe
    assert final.runtime_env["LD_LIBRARY_PATH"].endswith("compiler/2025.2/lib:${LD_LIBRARY_PATH}")
    assert "/users/own" not in str(final)
    assert final.runtime_env["ZES_ENABLE_SYSMAN"] == "1" and "ZES_ENABLE_SYSMAN" not in final.build_env
    assert (
        final.build_env["CMPLR_ROOT"]
        == final.runtime_env["CMPLR_ROOT"]
        == "/opt/intel/oneapi/compiler/2025.2"
    )


def test_a_setup_script_that_sets_nothing_is_a_failure_that_shows_what_it_said(make):
    machine = make("sycl")
    machine.file("opt/intel/oneapi/setvars.sh", "echo the licence has run out\nreturn 1\n")
    with pytest.raises(BuildFailedError, match="the licence has run out"):
        build_plan(recipe("sycl"), machine=machine.seen)


def test_a_toolkit_in_a_folder_that_a_variable_names_is_found(make, monkeypatch):
    machine = make("cpu")
    rocm(machine)
    (machine.root / "opt" / "rocm").rename(machine.root / "elsewhere")
    assert not look_for(recipe("rocm"), machine.seen).can_build
    monkeypatch.setenv("ROCM_PATH", str(machine.root / "elsewhere"))
    assert look_for(recipe("rocm"), machine.seen).is_complete


def test_a_folder_that_no_variable_names_is_no_folder_of_the_root(make):
    machine = make()
    machine.file("bin/tool")
    (machine.root / "bin" / "tool").chmod(0o755)
    assert machine.seen.find("tool", ("$NO_SUCH_VARIABLE/bin",)) == ""


def test_programs_of_a_build_environment_answer_for_it(make):
    machine = make()
    machine.program("say", {"twice 1": "first\nsecond"})
    asked = Recipe("x", "X", 1, build_env={"CC": "$(say twice 1)/clang", "PLAIN": "as is"})
    assert build_plan(asked, machine=machine.seen).recipe.build_env == {"CC": "first/clang", "PLAIN": "as is"}
    with pytest.raises(BuildFailedError, match="`say thrice` of recipe 'x'"):
        build_plan(Recipe("x", "X", 1, build_env={"CC": "$(say thrice)"}), machine=machine.seen)


def test_folders_of_the_recipe_that_are_there_stand_at_the_end_of_path(make):
    machine = make()
    machine.file("opt/here/tool")
    both = Recipe("x", "X", 1, detect=Detect(paths=("/opt/here", "/opt/gone")))
    assert build_plan(both, machine=machine.seen).recipe.build_env == {
        "PATH": f"${{PATH}}:{machine.root}/opt/here"
    }


def test_all_archs_at_once_are_ordered_by_what_they_give(make):
    machine = make()
    for fill in (cpu, cuda, rocm, vulkan, sycl):
        fill(machine)
    order = []
    for gone in ("dev/nvidia0", "dev/kfd", "sys/class/drm/renderD128/device/vendor", "dev/dri/renderD128"):
        order.append(choose(Paths.of_environment(), "auto", machine.seen).recipe.name)
        (machine.root / gone).unlink()
    assert [*order, choose(Paths.of_environment(), "auto", machine.seen).recipe.name] == [
        "cuda",
        "rocm",
        "sycl",
        "vulkan",
        "cpu",
    ]
