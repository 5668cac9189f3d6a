"""``llamamgr instance show``."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import Build, InstanceSpec
    from llamamgr.host.paths import Paths
    from llamamgr.instances.choice import Choice
    from llamamgr.instances.store import Instance


def instance(
    action: Annotated[str, typer.Argument(metavar="show", help="What to do; there is only `show`.")],
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The instance. [the one that commands use]")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="The instance that this model runs on.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show everything about one instance, and which rule chose it."""
    from llamamgr.cli.chosen import chosen_instance
    from llamamgr.core.errors import UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store

    if action != "show":
        raise UsageError(f"there is no `llamamgr instance {action}`", "llamamgr instance show [NAME]")
    paths = Paths.of_environment()
    choice = chosen_instance(paths, name, _full_name(paths, model) if model else "")
    found = Store(paths).instance(choice.name)
    if as_json:
        import json

        from llamamgr.cli.instances import document

        print(json.dumps(document(found) | {"chosen_by": choice.rule}, indent=2))
        return
    for title, text in _lines(found, choice):
        print(f"{title:<11} {text}".rstrip())


def _full_name(paths: Paths, model: str) -> str:
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    return Index(paths, load_config(paths)).resolve(model).name


def _lines(found: Instance, choice: Choice) -> list[tuple[str, str]]:
    former = next(iter(found.formers), None)
    lines = [
        ("instance", f"{found.spec.name} (chosen by: {choice.rule})"),
        *_wishes(found.spec),
        ("current", found.current or "none"),
        ("former", former.card.id if former else "none"),
        ("folder", found.root),
    ]
    for build in found.builds:
        lines += _build(found, build)
    for number, event in enumerate(reversed(found.ledger.events)):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(event.at))
        reason = f" ({event.reason})" if event.reason else ""
        lines.append(("history" if number == 0 else "", f"{when}  {event.why:<8}  {event.build}{reason}"))
    return lines


def _wishes(spec: InstanceSpec) -> list[tuple[str, str]]:
    """What is wanted, and whether somebody said so or it is a default."""
    from llamamgr.instances.sources import described

    kind = spec.source.kind if spec.source else ""
    arch_rule = (
        "what its devices say" if kind == "linked" else "the best of this machine when it was installed"
    )
    wishes = [
        ("arch", spec.arch, arch_rule),
        ("source", described(spec.source), "default"),
    ]
    if kind not in ("linked", "prebuilt"):
        wishes += [
            ("cmake_args", shlex.join(spec.cmake_args) or "none", "default"),
            ("gpu_targets", spec.gpu_targets or "what is in the machine", "default"),
            ("rpc", "yes" if spec.rpc else "no", "default"),
        ]
    shown = [
        (matter.replace("_", " "), f"{value}  ({'asked for' if matter in spec.said else default})")
        for matter, value, default in wishes
    ]
    if spec.ignore_python:
        shown.append(("python", "ignored  (asked for)"))
    return [*shown, ("pinned", "yes: `update` passes it over" if spec.pinned else "no")]


def _build(found: Instance, build: Build) -> list[tuple[str, str]]:
    from llamamgr.cli.instances import age, note_of
    from llamamgr.cli.output import human_size
    from llamamgr.instances.sources import described

    card = build.card
    star = " *" if card.id == found.current else ""
    lines = [
        ("", ""),
        ("build", f"{card.id}{star}"),
        ("  version", f"b{card.number} ({card.commit}), from {described(card.source)}"),
        ("  verified", f"{'yes' if card.verified else 'no'}: {' '.join(card.verify_note.split())}"),
        (
            "  made",
            f"{age(time.time() - card.created)} ago, in {card.seconds:.0f} s, {human_size(card.size)}",
        ),
    ]
    if card.cmake_args:
        lines.append(("  cmake", shlex.join(card.cmake_args)))
    if card.capability:
        lines.append(("  tools", " ".join(card.capability.tools)))
        lines += [("  device", device) for device in card.capability.devices]
    if note := note_of(found, build):
        lines.append(("  note", note))
    lines.append(("  folder", build.root))
    return lines
