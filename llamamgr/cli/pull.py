"""``llamamgr pull``."""

from __future__ import annotations

from typing import Annotated

import typer


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="llama3.2:1b, hf.co/org/repo:Q4_K_M, or hf:org/repo[:QUANT or :file.gguf][@revision].",
        ),
    ],
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a registry without TLS.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while it goes well.")] = False,
) -> None:
    """Fetch a model. What an earlier pull left is taken up; everything is checked. Starts the daemon if needed."""
    from llamamgr.cli.transfer_progress import follow
    from llamamgr.core.hub import parse_model_name
    from llamamgr.daemon.spawn import ensure_daemon
    from llamamgr.host.paths import Paths

    parse_model_name(model)
    control = ensure_daemon(Paths.of_environment())
    follow(control.lines("/api/pull", {"model": model, "insecure": insecure}), quiet=quiet)
    if not quiet:
        typer.echo(f'next: llamamgr run {model} "hello"')
