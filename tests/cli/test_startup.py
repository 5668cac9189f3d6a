"""Start-up is a feature: what a command may import is bounded."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "aiohttp",
    "httpx",
    "rich",
    "gguf",
    "huggingface_hub",
    "numpy",
    "prometheus_client",
    "pydantic",
    "psutil",
}


def imported(*arguments: str) -> set[str]:
    """The modules in memory when the command is over."""
    code = (
        "import sys, atexit\n"
        f"sys.argv = ['llamamgr', *{arguments!r}]\n"
        "atexit.register(lambda: print('\\nMODULES', *sys.modules, file=sys.stderr))\n"
        "from llamamgr.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stderr.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("list",),
        ("ps",),
        ("show", "selftest"),
        ("version",),
        ("stop",),
        ("instances",),
        ("instance", "show"),
        ("key", "list"),
    ],
)
def test_commands_that_show_or_ask_import_nothing_heavy(command: tuple[str, ...]):
    modules = imported(*command)
    assert "llamamgr.cli" in modules
    assert not modules & HEAVY


def test_help_lists_every_command():
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", "--help"], capture_output=True, text=True, timeout=60
    )
    from llamamgr.cli import COMMANDS

    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("pss",), "no such command 'pss'", "did you mean ps? `llamamgr -h` tells what there is"),
        (
            ("ps", "--jsn"),
            "no such option: --jsn",
            "did you mean --json? `llamamgr ps -h` tells what there is",
        ),
        (
            ("logs", "-n", "x"),
            "invalid value for '-n' / '--lines': 'x' is no whole number",
            "`llamamgr logs -h`",
        ),
        (("fit", "selftest", "-c"), "option '-c' requires an argument", "`llamamgr fit -h`"),
        (("key",), "missing argument 'action'. Choose from: create, list, remove", "`llamamgr key -h`"),
        (("run", "selftest", "x", "--keepalive", "5x"), "--keepalive: time: unknown unit", "write 30s"),
    ],
)
def test_what_the_parser_refuses_is_told_as_any_other_error(arguments, what, hint):
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", *arguments], capture_output=True, text=True, timeout=60
    )
    told, hinted = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert told.startswith(f"error: {what}") and hinted.startswith(f"hint: {hint}")


@pytest.mark.parametrize(
    "command", ["install", "run", "key", "daemon", "recipes", "logs", "exec", "quantize"]
)
def test_help_names_values_as_manuals_do(command):
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", command, "-h"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert not re.search(r"<[a-z]|Usage: .*\{|\[show NAME\]", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("frobnicate",), 2),
        (("ps",), 3),
        (("show", "nope"), 4),
        (("run", "bad name!", "x"), 2),
        (("server",), 7),
        (("run", "selftest", "x"), 7),
    ],
)
def test_errors_end_with_their_own_exit_code(arguments: tuple[str, ...], code: int, monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert done.stderr
    subprocess.run([sys.executable, "-m", "llamamgr", "stop"], capture_output=True, timeout=60)
