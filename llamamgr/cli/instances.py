"""``llamamgr instances``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llamamgr.instances.store import Instance

_HEAD = ("NAME", "ARCH", "BUILD", "COMMIT", "SIZE", "AGE", "VERIFIED", "CURRENT")
_UNITS = (
    (86400 * 365, "year"),
    (86400 * 30, "month"),
    (86400 * 7, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def instances(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the instances and their builds, newest first. The current build is the one that is run."""
    from llamamgr.cli.output import print_table
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store

    found, warnings = Store(Paths.of_environment()).instances()
    if as_json:
        import json

        print(
            json.dumps(
                {"instances": [_document(instance) for instance in found], "warnings": warnings}, indent=2
            )
        )
        return
    print_table(_HEAD, [row for instance in found for row in _rows(instance, time.time())])
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found:
        print("no llama.cpp is installed yet\nhint: run `llamamgr install`", file=sys.stderr)


def _rows(instance: Instance, now: float) -> list[tuple[str, ...]]:
    from llamamgr.cli.output import human_size

    spec = instance.spec
    if not instance.builds:
        return [(spec.name, spec.arch, *["-"] * 6)]
    return [
        (
            spec.name,
            card.arch,
            f"b{card.number}",
            card.commit,
            human_size(card.size),
            _age(now - card.created),
            "yes" if card.verified else "no",
            "*" if card.id == instance.current else "",
        )
        for card in (build.card for build in instance.builds)
    ]


def _document(instance: Instance) -> dict[str, Any]:
    """Everything but the long list of options that each build understands."""
    import msgspec

    builds = []
    for build in instance.builds:
        card: dict[str, Any] = msgspec.to_builtins(build.card)
        card.get("capability", {}).pop("flags", None)
        builds.append(card | {"root": build.root, "current": build.card.id == instance.current})
    spec: dict[str, Any] = msgspec.to_builtins(instance.spec)
    return spec | {"current": instance.current, "root": instance.root, "builds": builds}


def _age(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, int(seconds))} seconds"
