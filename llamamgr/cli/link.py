"""``llamamgr link``."""

from __future__ import annotations

from typing import Annotated

import typer


def link(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The instance to make.")],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A folder with llama-server, the program itself, or its name on PATH."
        ),
    ],
) -> None:
    """Make an instance of a llama.cpp that something else installed. It is tested, and used where it lies; nothing is copied.

    When its owner replaces it, it is tested again before it is used.
    """
    from llamamgr.cli.install_progress import reporting
    from llamamgr.core.names import parse_instance_name
    from llamamgr.daemon.oracle import self_test
    from llamamgr.host.paths import Paths
    from llamamgr.instances.link import link as perform

    paths = Paths.of_environment()
    with reporting() as report:
        card = perform(parse_instance_name(name), path, paths, self_test(paths), report).card
    print(f"{name}: llama.cpp b{card.number} ({card.commit}) for {card.arch}, {card.verify_note}")
    print(f"it lies where it lay: {card.source.location}")
