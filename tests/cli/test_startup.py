"""Start-up is a feature: what a command may import is bounded."""

from __future__ import annotations

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
