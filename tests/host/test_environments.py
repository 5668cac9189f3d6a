"""Environments: one laid over another, and what a setup script adds to one."""

import pytest

from llamamgr.core.errors import BuildFailedError
from llamamgr.host.environments import laid_over
from llamamgr.host.processes import scrubbed_environment
from llamamgr.host.setup_scripts import sourced


@pytest.mark.parametrize(
    ("value", "comes_to"),
    [
        ("/new:${LIST}", "/new:/a:/b"),
        ("${LIST}:/new", "/a:/b:/new"),
        ("/new:${UNSET}", "/new"),
        ("${UNSET}:/new", "/new"),
        ("/x:${UNSET}:/y", "/x:/y"),
        ("/x:${EMPTY}", "/x"),
        ("plain $LIST", "plain $LIST"),
    ],
)
def test_a_reference_is_what_the_environment_has_and_leaves_no_empty_element(value, comes_to):
    base = {"LIST": "/a:/b", "EMPTY": ""}
    assert laid_over(base, {"LIST2": value}) == base | {"LIST2": comes_to}


def test_what_an_engine_gets_is_expanded_too(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/users")
    assert (
        scrubbed_environment({"LD_LIBRARY_PATH": "/toolkit:${LD_LIBRARY_PATH}"})["LD_LIBRARY_PATH"]
        == "/toolkit:/users"
    )


def test_a_script_is_sourced_without_arguments_and_only_its_changes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "not for the script")
    script = tmp_path / "set up.sh"
    script.write_text(
        "export COUNT=$#\nexport SEEN=${SECRET:-nothing}\nexport MULTI='one\ntwo'\nlocal_only=1\n"
        "PATH=/toolkit/bin:$PATH:/toolkit/sbin\nfalse\n"
    )
    assert sourced(str(script)) == {
        "COUNT": "0",
        "SEEN": "nothing",
        "MULTI": "one\ntwo",
        "PATH": "/toolkit/bin:/toolkit/sbin:${PATH}",
    }


def test_a_script_that_ends_the_shell_is_told_with_what_it_said(tmp_path):
    script = tmp_path / "setup.sh"
    script.write_text("export A=1\necho wrong system\nexit 3\n")
    with pytest.raises(BuildFailedError, match="wrong system"):
        sourced(str(script))
