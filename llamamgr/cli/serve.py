"""``llamamgr serve``."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on, host[:port]; overrides LLAMAMGR_HOST and config.toml."
        ),
    ] = "",
) -> None:
    """Run the daemon in the foreground: supervisor, HTTP front and control socket. Ctrl-C stops it in order."""
    from llamamgr.daemon.run import run
    from llamamgr.host.paths import Paths

    run(Paths.of_environment(), host, announce=lambda url: print(f"llamamgr listens on {url}", flush=True))
