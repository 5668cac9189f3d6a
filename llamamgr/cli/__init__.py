"""The command line: one file per command; each is imported only when it is the one that runs.

``COMMANDS`` is the whole tree: name → module:function, one line of help. ``--help`` reads only this table.
"""

from __future__ import annotations

import sys

COMMANDS: dict[str, tuple[str, str]] = {
    "install": ("llamamgr.cli.install:install", "Get, build, verify and publish llama.cpp as an instance."),
    "instances": ("llamamgr.cli.instances:instances", "List the instances and their builds."),
    "serve": ("llamamgr.cli.serve:serve", "Run the daemon in the foreground."),
    "server": (
        "llamamgr.cli.server:server",
        "Run one llama-server of an instance in the foreground, with any of its flags.",
    ),
    "run": ("llamamgr.cli.run:run", "Chat with a model: one prompt, or a session."),
    "list": ("llamamgr.cli.list:list_models", "List the models."),
    "show": ("llamamgr.cli.show:show", "Show what is known of a model."),
    "ps": ("llamamgr.cli.ps:ps", "List the models that are loaded."),
    "stop": ("llamamgr.cli.stop:stop", "Unload a model, or stop the daemon."),
    "version": ("llamamgr.cli.version:version", "Show versions: llamamgr, the daemon, the current build."),
    "doctor": (
        "llamamgr.cli.doctor:doctor",
        "Check compiler, tools, toolkits, disk and port; say how to mend each.",
    ),
}
ALIASES = {"ls": "list"}


def main() -> None:
    """Entry point: run the command, turn every ``LlamamgrError`` into its text and exit code."""
    from llamamgr.core.errors import LlamamgrError

    try:
        from llamamgr.cli.app import build

        build(COMMANDS, ALIASES, sys.argv[1:])(prog_name="llamamgr")
    except LlamamgrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
