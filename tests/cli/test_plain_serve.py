"""The options of ``serve``, read without a parser: the same as with one, or not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llamamgr.cli.plain_serve import flags_in
from llamamgr.cli.serve import serve
from llamamgr.host.settings import OPTIONS

NOTHING = dict.fromkeys(OPTIONS, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], {}),
        (["--host", "127.0.0.1:0"], {"server.host": "127.0.0.1:0"}),
        (["--host=[::1]:1"], {"server.host": "[::1]:1"}),
        (["--tls-cert", "a=b", "--tls-key=c"], {"server.tls_cert": "a=b", "server.tls_key": "c"}),
        (["--host", "a", "--host", "b"], {"server.host": "b"}),
    ],
)
def test_options_with_values_are_taken(words: list[str], said: dict[str, str]) -> None:
    assert flags_in(words) == {**NOTHING, **said}


@pytest.mark.parametrize(
    "words", [["--help"], ["--host"], ["--host", "--tls-key"], ["--hots", "x"], ["x"], ["--", "--host=x"]]
)
def test_all_else_is_for_the_parser(words: list[str]) -> None:
    assert flags_in(words) is None


def test_every_option_of_the_command_is_known() -> None:
    assert len(OPTIONS) == len(serve.__annotations__) - 1


def test_the_daemon_brings_no_parser() -> None:
    code = "import sys, llamamgr.cli, llamamgr.cli.plain_serve, llamamgr.daemon.run; print('typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
