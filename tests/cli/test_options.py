"""Options as a struct: typer sees parameters, the command one value."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
import typer

from llamamgr.cli.options import taking


class Asked(msgspec.Struct, frozen=True):
    source: Annotated[str, typer.Option("--input", "-i", metavar="IN", help="What to read.")]
    ctx: typer.Context
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="Said several times.")] = None
    verify: Annotated[bool, typer.Option("--verify/--no-verify")] = True


def told(*words: str) -> Asked:
    """What a command of ``Asked`` gets of this command line."""
    got: list[Asked] = []

    @taking(Asked)
    def command(asked: Asked) -> None:
        """Tell what was asked."""
        got.append(asked)

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"allow_extra_args": True})(command)
    with pytest.raises(SystemExit):
        app([*words])
    return got[0]


def test_the_fields_of_a_struct_are_a_commands_options():
    asked = told("-i", "a", "--kind", "x", "--kind", "y", "--no-verify", "--", "rest")
    assert (asked.source, asked.kinds, asked.verify, asked.ctx.args) == ("a", ["x", "y"], False, ["rest"])


def test_what_is_not_said_is_as_the_struct_has_it():
    asked = told("--input", "a")
    assert (asked.kinds, asked.verify, asked.ctx.args) == (None, True, [])


def test_a_field_without_a_default_must_be_said(capsys):
    with pytest.raises(IndexError):
        told()
    assert "Missing option '--input' / '-i'" in capsys.readouterr().err


def test_a_command_of_a_struct_keeps_its_help(capsys):
    with pytest.raises(IndexError):
        told("--help")
    shown = capsys.readouterr().out
    assert "Tell what was asked." in shown
    assert "-i, --input IN" in shown
    assert "What to read.  [required]" in shown
