"""``llamamgr ps``."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any

import typer

from llamamgr.cli.output import human_size, print_table
from llamamgr.core.durations import format_duration


def ps(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the models that are loaded, with their child processes. Starts no daemon."""
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths

    answer = Control(Paths.of_environment()).call("GET", "/control/ps", timeout=5)
    children: list[dict[str, Any]] = answer["children"]
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    head = (
        *("NAME", "STATE", "BUILD", "PID", "MEMORY", "PLANNED", "DEVICES"),
        *("CONTEXT", "SLOTS", "QUEUE", "TOKENS/S", "UNTIL"),
    )
    print_table(head, [_row(child) for child in children])


def _row(child: dict[str, Any]) -> tuple[str, ...]:
    return (
        child["model"]["name"],
        child["state"],
        f"{child['build'].partition('/')[0]} b{child['build_number']}",
        str(child["pid"]),
        _memory(child),
        human_size(child["memory_planned"]),
        ",".join(child["devices"]) or "-",
        str(child["context"]),
        f"{child['busy']}/{child['slots']}",
        str(child["queued"]),
        f"{child['tokens_per_second']:.1f}" if child["tokens_per_second"] else "-",
        _until(child),
    )


def _memory(child: dict[str, Any]) -> str:
    """In main memory, and on GPUs."""
    main, on_gpus = human_size(child["memory"]), child["memory_gpu"]
    return f"{main} + {human_size(on_gpus)} GPU" if on_gpus else main


def _until(child: dict[str, Any]) -> str:
    expires = child["expires"]
    return format_duration(math.inf if expires is None else expires - time.time())
