"""A session of ``llamamgr run``, typed on a real terminal, with the daemon and a fake engine that writes down what it is asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.daemon.conftest import fake_flags, install_fake  # noqa: F401 - fixtures
from tests.fakes.fake_llama_server import ANSWER as WORDS
from tests.fakes.fake_llama_server import ENDLESS

ANSWER = "".join(WORDS)
Spawn = Callable[..., pexpect.spawn]


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The bodies of the chats that the engine was asked for, oldest first."""

    def read() -> list[dict[str, Any]]:
        lines = (tmp_path / "asked").read_text().splitlines()
        return [told["body"] for line in lines if "/chat" in (told := json.loads(line))["path"]]

    return read


@pytest.fixture
def session(
    install_fake: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Spawn]:
    install_fake(f"record={tmp_path / 'asked'}")
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")

    def start(*words: str) -> pexpect.spawn:
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "llamamgr", "run", *words],
            timeout=30,
            encoding="utf-8",
            dimensions=(40, 200),
        )
        terminal.expect_exact(">>> ")
        return terminal

    yield start
    subprocess.run([sys.executable, "-m", "llamamgr", "stop"], capture_output=True, timeout=60, check=False)


def say(terminal: pexpect.spawn, text: str, answer: str = ANSWER) -> None:
    terminal.sendline(text)
    terminal.expect_exact(answer)
    terminal.expect_exact(">>> ")


def leave(terminal: pexpect.spawn) -> None:
    terminal.sendline("/bye")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def texts(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def test_a_quoted_text_of_several_lines_is_one_prompt(session, asked):
    terminal = session("selftest")
    terminal.sendline('"""first line')
    terminal.expect_exact("... ")
    terminal.sendline("second line")
    terminal.expect_exact("... ")
    say(terminal, 'third line"""')
    say(terminal, '"""in one"""')
    leave(terminal)
    first, second = asked()
    assert texts(first) == [("user", "first line\nsecond line\nthird line")]
    assert texts(second)[1:] == [("assistant", ANSWER), ("user", "in one")]


def test_what_is_set_holds_for_the_answers_that_follow(session, asked):
    terminal = session("selftest")
    say(terminal, "/set system Be brief.", "is set")
    say(terminal, "/set parameter temperature 0.25", "temperature is 0.25")
    say(terminal, "/set parameter stop END STOP", "stop is ['END', 'STOP']")
    say(terminal, "/set nothink", "does not think")
    say(terminal, "/set format json", "JSON")
    say(terminal, "/set verbose", "timings are shown")
    say(terminal, "hello", "tokens/s")
    say(terminal, "/clear", "forgotten")
    say(terminal, "hello", "tokens/s")
    leave(terminal)
    first, second = asked()
    assert texts(first) == texts(second) == [("system", "Be brief."), ("user", "hello")]
    assert (first["temperature"], first["stop"]) == (0.25, ["END", "STOP"])
    assert first["response_format"]["type"] == "json_object"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/set parameter temprature 1", "did you mean temperature?"),
        ("/set parameter seed x", "invalid int value [x]"),
        ("/set nonsense", "/? tells what can"),
        ("/frobnicate", "unknown command /frobnicate"),
        ("/show me", "there are: info, license"),
        ("/load", "/load needs a model"),
        ("/load nix", "model 'nix' not found"),
        ("/save", "/save needs a name"),
        ("/?", "/set system TEXT"),
        ("/list", "selftest:latest"),
        ("/show", "architecture"),
        ("/show template", "{%"),
    ],
)
def test_commands_answer_mistakes_end_nothing_and_neither_is_said_to_the_model(session, asked, typed, told):
    terminal = session("selftest")
    say(terminal, typed, told)
    say(terminal, "hello")
    leave(terminal)
    assert [texts(body) for body in asked()] == [[("user", "hello")]]


def test_a_path_that_begins_a_text_is_no_command(session, asked):
    terminal = session("selftest")
    say(terminal, "/etc/hosts is what?")
    leave(terminal)
    assert texts(asked()[0]) == [("user", "/etc/hosts is what?")]


def test_a_saved_conversation_goes_on_where_it_ended(session, asked):
    terminal = session("selftest")
    say(terminal, "/set system Be brief.", "is set")
    say(terminal, "hello")
    say(terminal, "/save mine", "mine is saved")
    say(terminal, "/load mine", "mine is loaded")
    say(terminal, "again")
    leave(terminal)
    assert texts(asked()[-1]) == [
        ("system", "Be brief."),
        ("user", "hello"),
        ("assistant", ANSWER),
        ("user", "again"),
    ]


def test_ctrl_c_ends_an_answer_or_a_line_and_never_the_session(session, asked):
    terminal = session("selftest")
    for _ in range(2):
        terminal.sendline(ENDLESS)
        terminal.expect_exact(WORDS[0])
        terminal.sendintr()
        terminal.expect_exact(">>> ")
    assert [role for role, _ in texts(asked()[-1])] == ["user", "assistant", "user"]
    say(terminal, "/clear", "forgotten")
    terminal.sendline('"""half a text')
    terminal.expect_exact("... ")
    terminal.sendintr()
    terminal.expect_exact("/bye or Ctrl-D leaves")
    say(terminal, "hello")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_a_private_session_has_the_same_and_is_ended_by_sigterm(session, asked, own_home):
    terminal = session("--private", "selftest")
    say(terminal, "/set parameter seed 7", "seed is 7")
    say(terminal, "hello")
    say(terminal, "/load other", "keeps its model")
    say(terminal, "/set parameter num_ctx 64", "num_ctx is 64")
    say(terminal, "hello", "is loaded already")
    assert asked()[0]["seed"] == 7
    terminal.kill(signal.SIGTERM)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert not (own_home / "run").exists()
