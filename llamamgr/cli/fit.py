"""``llamamgr fit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from llamamgr.cli.output import human_size, print_json

if TYPE_CHECKING:
    from llamamgr.daemon.fit import Fit
    from llamamgr.plan.events import Placement

Row = tuple[str, str]

_PARTS = {
    "weights": "weights",
    "cache": "KV cache",
    "compute": "compute",
    "prompt_cache": "prompt cache",
    "projector": "projector, adapters",
    "draft": "draft model",
    "margin": "margin",
}
_TIERS = {"gpu": "", "partly": " (the rest of it in main memory)", "host": " (slow)"}


def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name as `llamamgr list` shows it.")],
    context: Annotated[int, typer.Option("--context", "-c", min=0, help="Tokens per slot.")] = 0,
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=0, max=256, help="Slots.")] = 0,
    instance: Annotated[str, typer.Option("--instance", help="The instance to run it on.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tell what memory a model takes by estimate, by the engine and as measured, and where it would go. Loads nothing."""
    from llamamgr.daemon.fit import explain

    found = explain(model, context=context, parallel=parallel, instance=instance)
    if as_json:
        print_json(found)
        return
    slots = "slot" if found.parallel == 1 else "slots"
    print(f"{found.model} on {found.build}: {found.parallel} {slots} of {found.context} tokens\n")
    if found.asked > found.context:
        print(f"  of the {found.asked} tokens asked for, it was trained for {found.context}\n")
    for title, rows in (
        ("Estimate", _estimate(found)),
        ("llama-fit-params", _engine(found)),
        ("Measured", _measured(found)),
        ("For models", _budget(found)),
        ("Places, best first", _places(found)),
    ):
        _print_section(title, rows)


def _estimate(found: Fit) -> list[Row]:
    sizes = {label: getattr(found.parts, name) for name, label in _PARTS.items()}
    rows = [(label, human_size(size)) for label, size in sizes.items() if size]
    return [*rows, ("in all", human_size(found.parts.total))]


def _engine(found: Fit) -> list[Row]:
    if not found.has_tool:
        return [("this build has none", "")]
    return _by_device(found.engine) or [("no answer", "")]


def _measured(found: Fit) -> list[Row]:
    record = found.measured
    if record is None:
        return [("never loaded so", "")]
    rows = [("main memory alone", human_size(record.memory))] if record.memory else []
    rows += [(f"{label}, on GPUs", size) for label, size in _by_device(record.whole)]
    rows += [(f"{label}, partly on GPUs", size) for label, size in _by_device(record.partly)]
    return [*rows, ("load", f"{record.load_seconds:.1f} s")]


def _budget(found: Fit) -> list[Row]:
    rows = _by_device(found.budget)
    return [
        (
            label,
            f"{size} of {human_size(found.sizes[label])}, {human_size(found.foreign[label])} in use by others",
        )
        if label in found.sizes
        else (label, size)
        for label, size in rows
    ]


def _places(found: Fit) -> list[Row]:
    rows = []
    for number, place in enumerate(found.places, 1):
        mark = "  <- here" if place == found.place else ""
        rows.append((str(number), f"{_told(place)}{mark}"))
    return (
        rows if found.place else [*rows, ("-", "it fits nowhere: a smaller quant, context or --parallel may")]
    )


def _told(place: Placement) -> str:
    needs = ", ".join(f"{label} {size}" for label, size in _by_device(place.need))
    return f"{needs}{_TIERS[place.tier]}"


def _by_device(sizes: Mapping[str, int]) -> list[Row]:
    """GPUs first."""
    ordered = sorted(sizes.items(), key=lambda item: (item[0] == "host", item[0]))
    return [("main memory" if name == "host" else name, human_size(max(0, size))) for name, size in ordered]


def _print_section(title: str, rows: list[Row]) -> None:
    width = max(len(label) for label, _ in rows)
    print(f"  {title}")
    for label, value in rows:
        print(f"    {label.ljust(width)}    {value}".rstrip())
    print()
