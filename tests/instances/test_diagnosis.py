"""The doctor: what it finds is true, and every fault comes with what mends it."""

import pytest

from llamamgr.host.compilers import compile_fault, compiler, free_space
from llamamgr.instances import diagnosis
from llamamgr.instances.diagnosis import findings
from tests.fakes.package_index import PackageIndex


def by_name(paths):
    return {finding.name: finding for finding in findings(paths)}


def test_every_fault_has_what_mends_it_and_nothing_good_has(paths):
    for finding in findings(paths):
        assert bool(finding.mend) != finding.good, finding


def test_a_machine_that_builds_is_found_fit(paths):
    found = by_name(paths)
    assert all(found[name].good and found[name].required for name in ("compiler", "cmake", "ninja", "disk"))
    assert not found["instance"].good and found["instance"].mend == "llamamgr install"


def test_a_bare_machine_is_told_what_to_type(paths, monkeypatch, tmp_path):
    (tmp_path / "dnf").write_text("#!/bin/sh\n")
    (tmp_path / "dnf").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(paths)
    assert found["compiler"].mend == "sudo dnf install gcc-c++" and found["compiler"].required
    assert found["git"].mend == "sudo dnf install git" and not found["git"].required


def test_a_compiler_without_its_headers_is_no_compiler(paths, monkeypatch, tmp_path):
    (tmp_path / "c++").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "c++ 12.2.0" || { echo "fatal error: no headers"; exit 1; }\n'
    )
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = by_name(paths)["compiler"]
    assert not finding.good and "no headers" in finding.text


def test_the_compiler_here_compiles():
    found = compiler()
    assert found is not None and compile_fault(found.path) == ""


def test_a_full_disk_is_a_fault(paths, monkeypatch):
    monkeypatch.setattr(diagnosis, "free_space", lambda folder: 10**6)
    finding = by_name(paths)["disk"]
    assert not finding.good and finding.required and "0.0 GB free" in finding.text
    assert free_space(paths.data / "not" / "there") > 0


def test_instances_and_strangers_are_told(paths, run_install, store):
    run_install()
    (store.root / "stranger.txt").write_text("")
    found = findings(paths)
    assert any(
        finding.name == "instance" and finding.good and "default: b0" in finding.text for finding in found
    )
    assert any(
        finding.name == "store" and not finding.good and "stranger.txt" in finding.text for finding in found
    )


@pytest.mark.parametrize("name", ["cmake", "ninja"])
def test_a_missing_build_tool_is_no_fault_where_pip_can_fetch_it(
    paths, monkeypatch, name, index: PackageIndex
):
    monkeypatch.setattr(diagnosis, "local_tool", lambda name, paths: None)
    assert by_name(paths)[name].good
    monkeypatch.setattr(diagnosis, "pip_command", _no_pip)
    finding = by_name(paths)[name]
    assert not finding.good and finding.required and name in finding.mend


def _no_pip():
    from llamamgr.core.errors import MissingToolError

    raise MissingToolError("no pip")
