"""``llamamgr instances``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import Build
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Instance

_HEAD = ("NAME", "ARCH", "BUILD", "COMMIT", "SIZE", "AGE", "VERIFIED", "CURRENT", "NOTE")
_UNITS = (
    (86400 * 365, "year"),
    (86400 * 30, "month"),
    (86400 * 7, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)
_NOTE = 100  # characters of a note in the table; `instance show` has all of it


def instances(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the instances and their builds, newest first. The current build is the one that is run."""
    from llamamgr.cli.output import print_table
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    found, warnings = Store(paths).instances()
    if as_json:
        import json

        print(
            json.dumps(
                {"instances": [document(instance) for instance in found], "warnings": warnings}, indent=2
            )
        )
        return
    print_table(_HEAD, [row for instance in found for row in _rows(instance, time.time())])
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found and not warnings:
        _tell_none(paths)


def _tell_none(paths: Paths) -> None:
    from llamamgr.instances.ladder import server_of_path
    from llamamgr.instances.store import Store

    server = server_of_path(Store(paths))
    instead = f": models run on {server}, which is on PATH" if server else ""
    print(f"no llama.cpp is installed yet{instead}\nhint: run `llamamgr install`", file=sys.stderr)


def note_of(instance: Instance, build: Build) -> str:
    """What is worth knowing of a build: why it is bad, that the instance fell back to it, that it is kept."""
    notes = []
    is_current = build.card.id == instance.current
    if mark := instance.ledger.mark(build.card.id):
        notes.append(f"bad: {mark.reason}")
    event = instance.ledger.arrival(build.card.id) if is_current else None
    if event is not None and event.why == "fallback":
        notes.append(f"fell back from {event.reason}")
    if is_current and instance.spec.pinned:
        notes.append("pinned")
    if not build.card.verified and not is_current:
        notes.append(build.card.verify_note)
    return "; ".join(" ".join(note.split()) for note in notes)


def document(instance: Instance) -> dict[str, Any]:
    """Everything but the long list of options that each build understands."""
    import msgspec

    builds = []
    for build in instance.builds:
        card: dict[str, Any] = msgspec.to_builtins(build.card)
        card.get("capability", {}).pop("flags", None)
        own = {
            "root": build.root,
            "current": build.card.id == instance.current,
            "verified": build.card.verified,
            "note": note_of(instance, build),
        }
        builds.append(card | own)
    former = next(iter(instance.formers), None)
    spec: dict[str, Any] = msgspec.to_builtins(instance.spec)
    return spec | {
        "pinned": instance.spec.pinned,
        "current": instance.current,
        "former": former.card.id if former else "",
        "root": instance.root,
        "builds": builds,
        "history": msgspec.to_builtins(instance.ledger.events),
    }


def age(seconds: float) -> str:
    """``3 days``, in the largest unit that fits."""
    for length, unit in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    left = max(0, int(seconds))
    return f"{left} second{'s' if left != 1 else ''}"


def _rows(instance: Instance, now: float) -> list[tuple[str, ...]]:
    from llamamgr.cli.output import human_size

    spec = instance.spec
    if not instance.builds:
        return [(spec.name, spec.arch, *["-"] * 7)]
    return [
        (
            spec.name,
            build.card.arch,
            f"b{build.card.number}",
            build.card.commit,
            human_size(build.card.size),
            age(now - build.card.created),
            "yes" if build.card.verified else "no",
            "*" if build.card.id == instance.current else "",
            _cut(note_of(instance, build)),
        )
        for build in instance.builds
    ]


def _cut(note: str) -> str:
    return note if len(note) <= _NOTE else f"{note[: _NOTE - 1]}…"
