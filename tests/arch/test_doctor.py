"""The doctor on made-up machines: each arch that may apply, with versions, and what to type."""

import pytest

from llamamgr.host.paths import Paths
from llamamgr.instances import diagnosis
from llamamgr.instances.diagnosis import Finding, findings
from llamamgr.instances.recipes import users_folder


@pytest.fixture
def diagnose(make, monkeypatch):
    """The doctor's findings by name on ``make(arch)``, once ``change`` has been made to it."""

    def diagnosed(arch: str, change=lambda machine: None) -> dict[str, Finding]:
        machine = make(arch)
        change(machine)
        monkeypatch.setattr(diagnosis, "this_machine", lambda: machine.seen)
        return {finding.name: finding for finding in findings(Paths.of_environment())}

    return diagnosed


def test_an_arch_that_is_all_here_is_good_with_its_versions(diagnose):
    found = diagnose("cuda")
    assert found["cuda"].good and "/dev/nvidia0, nvcc 13.0" in found["cuda"].text
    assert "`--arch auto` can take it" in found["cuda"].text


def test_hardware_without_its_toolkit_is_a_fault_with_the_command(diagnose):
    found = diagnose("cpu", lambda machine: machine.file("dev/kfd"))
    assert not found["rocm"].good and not found["rocm"].required
    assert found["rocm"].mend == "sudo apt install hipcc libhipblas-dev librocblas-dev"


def test_hardware_without_its_driver_is_a_fault(diagnose):
    found = diagnose("cpu", lambda machine: machine.pci("19e5", "d500"))
    assert not found["cann"].good and found["cann"].mend.startswith("install the driver of the Ascend NPU; ")


def test_arches_without_hardware_here_do_not_apply_and_those_of_other_systems_are_left_out(diagnose):
    found = diagnose("cpu")
    assert not found["sycl"].applies and "no Intel GPU is seen here" in found["sycl"].text
    assert "metal" not in found and "cpu" not in found


def test_a_broken_recipe_is_a_fault_with_its_file(diagnose):
    folder = users_folder(Paths.of_environment())
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("name = 1\n")
    found = diagnose("cpu")
    assert not found["recipe"].good and "mine.toml" in found["recipe"].text
