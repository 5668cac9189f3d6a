"""``llamamgr list``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llamamgr.cli.output import human_size, print_json, print_table

if TYPE_CHECKING:
    from llamamgr.core.cards import ModelCard
    from llamamgr.core.config import Config
    from llamamgr.host.paths import Paths
    from llamamgr.models.scan import Listing

Aliases: TypeAlias = Mapping[str, tuple[str, ...]]

_HEAD = ("NAME", "ID", "SIZE", "QUANT", "ARCH", "CONTEXT", "MODIFIED")
_AGES = (
    (31_536_000, "year"),
    (2_592_000, "month"),
    (604_800, "week"),
    (86_400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell where models are, and what was passed over and why.")
    ] = False,
) -> None:
    """List the models there are: the embedded one, the own store's, and those of the configured folders."""
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    paths = Paths.of_environment()
    config = load_config(paths)
    index = Index(paths, config)
    listing, aliases = _without_fault_of_home(paths, index.refresh()), index.aliases()
    if as_json:
        _print_json(listing, aliases, config)
        return
    _print(listing, aliases, verbose)
    _tell_skipped(listing, verbose)


def _without_fault_of_home(paths: Paths, listing: Listing) -> Listing:
    """A home that cannot be written to leaves out the embedded model, which is always there otherwise: that is told by itself.

    ``PermissionDeniedError`` when there is no other model either.
    """
    import msgspec

    from llamamgr.core.errors import PermissionDeniedError
    from llamamgr.models.sources import embedded_folder

    folder = str(embedded_folder(paths))
    faults = [file for file in listing.skipped if file.path == folder]
    if not faults:
        return listing
    error = PermissionDeniedError(
        f"{folder} cannot be written: {faults[0].reason}", "set LLAMAMGR_HOME to a folder of yours"
    )
    if not listing.models:
        raise error
    typer.echo(f"warning: {error}", err=True)
    others = tuple(file for file in listing.skipped if file.path != folder)
    return msgspec.structs.replace(listing, skipped=others)


def _print(listing: Listing, aliases: Aliases, verbose: bool) -> None:
    """The table; a column of other names only where a model has one."""
    head = (*_HEAD, *(["ALIASES"] if aliases else []), *(["FILE"] if verbose else []))
    now, rows = time.time(), []
    for card in listing.models:
        others = [", ".join(aliases.get(card.name, ())) or "-"] if aliases else []
        rows.append((*_row(card, now), *others, *([card.path] if verbose else [])))
    print_table(head, rows)


def _row(card: ModelCard, now: float) -> tuple[str, ...]:
    return (
        card.name,
        card.digest[:12],
        human_size(card.size),
        card.quant or "-",
        card.arch,
        str(card.context or "-"),
        age(now - card.modified),
    )


def age(seconds: float) -> str:
    """How long ago, in the largest unit that counts: ``2 hours ago``."""
    for length, unit in _AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _tell_skipped(listing: Listing, verbose: bool) -> None:
    if verbose:
        for fault in listing.skipped:
            typer.echo(f"warning: {fault.path}: {fault.reason}", err=True)
    elif listing.skipped:
        count = len(listing.skipped)
        files = "file or folder was" if count == 1 else "files or folders were"
        typer.echo(f"warning: {count} {files} passed over; `llamamgr list -v` tells why", err=True)


def _print_json(listing: Listing, aliases: Aliases, config: Config) -> None:
    """The cards, with what config.toml says of each; its ``env`` is nobody else's business."""
    import msgspec

    def told(card: ModelCard) -> dict[str, Any]:
        settings = msgspec.structs.replace(config.settings_of(card.name), aliases=(), env={})
        own = {"aliases": aliases.get(card.name, ()), "configured": msgspec.to_builtins(settings)}
        return msgspec.structs.asdict(card) | own

    document: dict[str, Any] = {
        "models": [told(card) for card in listing.models],
        "skipped": [msgspec.structs.asdict(fault) for fault in listing.skipped],
    }
    print_json(document)
