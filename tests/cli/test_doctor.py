"""``llamamgr doctor``: marks for people, a document for programs, a status for both."""

import json
import os
import socket

import pytest
import typer

from llamamgr.cli import doctor as command
from llamamgr.core.errors import ConfigError
from llamamgr.core.keys import Key, hash_of
from llamamgr.host.keys_file import change_keys
from llamamgr.host.paths import Paths
from llamamgr.instances import diagnosis
from llamamgr.instances.diagnosis import Finding


def answers(monkeypatch, *findings: Finding) -> None:
    monkeypatch.setattr(diagnosis, "findings", lambda paths: findings)


def test_each_line_is_marked_and_each_fault_followed_by_what_mends_it(monkeypatch, capsys):
    answers(
        monkeypatch,
        Finding("git", True, "2.39"),
        Finding("ccache", False, "not found", "sudo apt install ccache"),
    )
    command.doctor(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "✓ git     2.39"
        and lines[1] == "✗ ccache  not found"
        and lines[2].strip() == "→ sudo apt install ccache"
    )


def test_what_does_not_apply_here_is_neither_good_nor_bad_and_each_thing_to_type_has_its_line(
    monkeypatch, capsys
):
    answers(
        monkeypatch,
        Finding("rocm", True, "no AMD GPU is seen here", applies=False),
        Finding("cuda", False, "missing: CUDA compiler", "sudo apt install a; see b.org"),
    )
    command.doctor(as_json=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "· rocm  no AMD GPU is seen here"
    assert lines[2:4] == ["→ sudo apt install a", "→ see b.org"]


def test_something_indispensable_missing_is_status_7(monkeypatch, capsys):
    answers(monkeypatch, Finding("compiler", False, "none", "sudo apt install g++", required=True))
    with pytest.raises(typer.Exit) as caught:
        command.doctor(as_json=True)
    assert caught.value.exit_code == 7
    first = json.loads(capsys.readouterr().out)["findings"][0]
    assert first == {
        "name": "compiler",
        "good": False,
        "text": "none",
        "mend": "sudo apt install g++",
        "required": True,
        "applies": True,
    }


def test_who_holds_the_port_is_named_with_a_way_around(monkeypatch, capsys):
    answers(monkeypatch)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setenv("LLAMAMGR_HOST", f"127.0.0.1:{port}")
        command.doctor(as_json=False)
    out = capsys.readouterr().out
    assert (
        f"✗ port  {port} is held by" in out
        and str(os.getpid()) in out
        and f"LLAMAMGR_HOST=127.0.0.1:{port + 1}" in out
    )
    command.doctor(as_json=False)
    assert f"✓ port  {port} is free" in capsys.readouterr().out


def test_a_front_for_the_network_without_a_key_is_a_fault_with_its_remedy(monkeypatch, capsys):
    answers(monkeypatch)
    monkeypatch.setenv("LLAMAMGR_HOST", "0.0.0.0:1")
    command.doctor(as_json=False)
    out = capsys.readouterr().out
    assert "✗ keys  0.0.0.0:1 is for the network; 0 API keys" in out and "→ llamamgr key create NAME" in out
    change_keys(Paths.of_environment(), lambda keys: (Key(hash_of("lmk-a"), "ann"),))
    command.doctor(as_json=False)
    assert "✓ keys  0.0.0.0:1 is for the network; 1 API key\n" in capsys.readouterr().out


def configure(text: str):
    file = Paths.of_environment().config_file
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_a_setting_that_cannot_work_is_told_with_its_key(monkeypatch, capsys):
    answers(monkeypatch)
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:1")
    configure('default_model = "nix"\n')
    command.doctor(as_json=False)
    out = capsys.readouterr().out
    assert "✗ config  default_model: model 'nix' not found\n" in out


def test_a_mistake_in_the_configuration_does_not_keep_the_rest_from_being_told(monkeypatch, capsys):
    answers(monkeypatch, Finding("git", True, "2.39"))
    file = configure("keep_alife = 1\n")
    with pytest.raises(ConfigError, match="unknown key keep_alife") as caught:
        command.doctor(as_json=False)
    assert str(file) in caught.value.what
    assert "✓ git  2.39" in capsys.readouterr().out
