"""The command line: one file per command; each is imported only when it is the one that runs.

``COMMANDS`` is the whole tree: name → module:function, one line of help. ``--help`` reads only this table.
"""

from __future__ import annotations

import io
import sys

COMMANDS: dict[str, tuple[str, str]] = {
    "install": ("llamamgr.cli.install:install", "Get, build, verify and publish llama.cpp as an instance."),
    "instances": ("llamamgr.cli.instances:instances", "List the instances and their builds."),
    "instance": ("llamamgr.cli.instance:instance", "Show one instance: wishes, builds, history."),
    "update": ("llamamgr.cli.update:update", "Build the newest, beside the build that runs."),
    "use": ("llamamgr.cli.use:use", "Choose the instance that models run on."),
    "rollback": ("llamamgr.cli.rollback:rollback", "Go back to the build before, or to any other."),
    "pin": ("llamamgr.cli.pin:pin", "Keep an instance from being updated."),
    "unpin": ("llamamgr.cli.pin:unpin", "Let an instance be updated again."),
    "prune": ("llamamgr.cli.prune:prune", "Remove builds that nobody needs."),
    "uninstall": ("llamamgr.cli.uninstall:uninstall", "Remove an instance."),
    "link": ("llamamgr.cli.link:link", "Make an instance of a llama.cpp that is installed already."),
    "exec": ("llamamgr.cli.exec:execute", "Run a tool of an instance: llama-bench, llama-perplexity …"),
    "recipes": ("llamamgr.cli.recipes:recipes", "List the arches to build for, and what is here of each."),
    "serve": ("llamamgr.cli.serve:serve", "Run the daemon in the foreground."),
    "server": (
        "llamamgr.cli.server:server",
        "Run one llama-server of an instance in the foreground, with any of its flags.",
    ),
    "run": ("llamamgr.cli.run:run", "Chat with a model: one prompt, or a session."),
    "pull": ("llamamgr.cli.pull:pull", "Fetch a model from a registry or from Hugging Face."),
    "create": ("llamamgr.cli.create:create", "Make a model of a Modelfile."),
    "cp": ("llamamgr.cli.cp:copy", "Give a model a second name."),
    "rm": ("llamamgr.cli.rm:remove", "Remove models of the own store."),
    "list": ("llamamgr.cli.list:list_models", "List the models."),
    "show": ("llamamgr.cli.show:show", "Show what is known of a model."),
    "fit": ("llamamgr.cli.fit:fit", "Tell what memory a model takes, and where it would go."),
    "ps": ("llamamgr.cli.ps:ps", "List the models that are loaded."),
    "stop": ("llamamgr.cli.stop:stop", "Unload a model, or stop the daemon."),
    "quantize": ("llamamgr.cli.quantize:quantize", "Write a model in fewer bits per weight."),
    "convert": ("llamamgr.cli.convert:convert", "Make a GGUF of a Hugging Face model or adapter."),
    "bench": ("llamamgr.cli.bench:bench", "Measure builds side by side, and against their past."),
    "bisect": ("llamamgr.cli.bisect:bisect", "Find the commit of llama.cpp that broke or slowed something."),
    "key": ("llamamgr.cli.key:key", "Make, list or remove API keys of the front."),
    "logs": ("llamamgr.cli.logs:logs", "Show the log of a model's engine, or the daemon's."),
    "daemon": (
        "llamamgr.cli.daemon:daemon",
        "Start, stop, restart or reload the daemon, or ask for its status.",
    ),
    "version": ("llamamgr.cli.version:version", "Show versions: llamamgr, the daemon, the current build."),
    "doctor": (
        "llamamgr.cli.doctor:doctor",
        "Check compiler, tools, toolkits, disk and port; say how to mend each.",
    ),
}
ALIASES = {"ls": "list"}


def main() -> None:
    """Entry point: run the command, turn every ``LlamamgrError`` into its text and exit code."""
    from llamamgr.core.errors import LlamamgrError, system_error

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

    try:
        if len(sys.argv) > 1 and sys.argv[1].startswith("llama-"):
            from llamamgr.cli.exec import short_form

            short_form(sys.argv[1], sys.argv[2:])
        if sys.argv[1:2] == ["serve"]:
            from llamamgr.cli.plain_serve import serve_plainly

            if serve_plainly(sys.argv[2:]):
                return
        from llamamgr.cli.app import perform

        sys.exit(perform(COMMANDS, ALIASES, sys.argv[1:], "llamamgr"))
    except LlamamgrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            sys.exit(141)
        told = system_error(error)
        print(f"error: {told}", file=sys.stderr)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
