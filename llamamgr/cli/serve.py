"""``llamamgr serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from llamamgr.cli.plain_serve import run_daemon


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on, host[:port]; overrides LLAMAMGR_HOST and config.toml."
        ),
    ] = "",
    tls_cert: Annotated[
        str, typer.Option("--tls-cert", help="Certificate to speak HTTPS with, a PEM file; with --tls-key.")
    ] = "",
    tls_key: Annotated[str, typer.Option("--tls-key", help="Its private key, a PEM file.")] = "",
) -> None:
    """Run the daemon in the foreground: supervisor, HTTP front and control socket. Ctrl-C stops it in order."""
    run_daemon({"server.host": host, "server.tls_cert": tls_cert, "server.tls_key": tls_key})
