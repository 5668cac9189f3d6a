"""``llamamgr ps``."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamamgr.cli.output import human_size, print_table
from llamamgr.core.durations import format_duration

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths


def ps(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Tell process ids, planned memory and tokens per second too."),
    ] = False,
) -> None:
    """List the models that are loaded, with their child processes. Starts no daemon."""
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    answer = Control(paths).call("GET", "/control/ps", timeout=5)
    children: list[dict[str, Any]] = answer["children"]
    notes = _notes(paths)
    if as_json:
        print(json.dumps({**answer, "notes": notes}, indent=2))
        return
    head = ("NAME", "STATE", "BUILD", "MEMORY", "DEVICES", "CONTEXT", "SLOTS", "UNTIL")
    more = ("PID", "PLANNED", "TOKENS/S") if verbose else ()
    print_table((*head, *more), [_row(child, verbose) for child in children])
    for note in notes:
        print(f"note: {note}")


def _notes(paths: Paths) -> list[str]:
    """The instances that went back by themselves to the builds they run now."""
    from llamamgr.instances.store import Store

    return [
        f"instance {name} fell back to {event.build} from {' '.join(event.reason.split())}"
        for name, event in Store(paths).fallbacks().items()
    ]


def _row(child: dict[str, Any], verbose: bool) -> tuple[str, ...]:
    row = (
        child["model"]["name"],
        child["state"],
        f"{child['build'].partition('/')[0]} b{child['build_number']}",
        _memory(child),
        ",".join(child["devices"]) or "-",
        str(child["context"]),
        _slots(child),
        _until(child),
    )
    return (*row, *_more(child)) if verbose else row


def _more(child: dict[str, Any]) -> tuple[str, ...]:
    speed = child["tokens_per_second"]
    return str(child["pid"]), human_size(child["memory_planned"]), f"{speed:.1f}" if speed else "-"


def _slots(child: dict[str, Any]) -> str:
    """Those in use of all, and the requests that wait for one."""
    waiting = f" +{child['queued']}" if child["queued"] else ""
    return f"{child['busy']}/{child['slots']}{waiting}"


def _memory(child: dict[str, Any]) -> str:
    """In main memory, and on GPUs."""
    main, on_gpus = human_size(child["memory"]), child["memory_gpu"]
    return f"{main} + {human_size(on_gpus)} GPU" if on_gpus else main


def _until(child: dict[str, Any]) -> str:
    expires = child["expires"]
    return format_duration(math.inf if expires is None else expires - time.time())
