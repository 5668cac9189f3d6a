"""``llamamgr quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llamamgr.cli.options import taking
from llamamgr.cli.output import human_size, print_json, print_table

if TYPE_CHECKING:
    from llamamgr.core.cards import Build
    from llamamgr.core.quant_types import QuantType, Sizes
    from llamamgr.host.paths import Paths
    from llamamgr.instances.quantize import Order, Quantized

context_settings = {"allow_extra_args": True}


class Asked(msgspec.Struct, frozen=True):
    """What ``quantize`` was asked for."""

    ctx: typer.Context
    source: Annotated[
        str, typer.Option("--input", "-i", metavar="IN", help="A GGUF file, or a model of `llamamgr list`.")
    ] = ""
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="A file, a folder, or a name with {type}. [the own store]"
        ),
    ] = ""
    kinds: Annotated[
        list[str] | None,
        typer.Option("--quant", "-q", metavar="TYPE", help="Such as Q4_K_M; may be said several times."),
    ] = None
    imatrix: Annotated[str, typer.Option(metavar="FILE", help="Importance matrix of llama-imatrix.")] = ""
    tensor_type: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TYPE", help="Another type for these tensors.")
    ] = None
    pure: Annotated[bool, typer.Option("--pure", help="All tensors in the one type, no mixture.")] = False
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Take an input that is quantized already.")
    ] = False
    threads: Annotated[int, typer.Option("--threads", "-t", min=0, help="[the tool's choice]")] = 0
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell the sizes.")] = False
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")] = False
    instance: Annotated[str, typer.Option("--instance", help="The instance whose llama-quantize runs.")] = ""
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False


@taking(Asked)
def quantize(asked: Asked) -> None:
    """Write a model in fewer bits per weight. Without --input and --quant: the types there are.

    Everything after -- goes to llama-quantize as it is.
    """
    from llamamgr.cli.engine import ready_engine
    from llamamgr.core.errors import UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.quantize import known_types

    paths = Paths.of_environment()
    build = ready_engine(paths, asked.instance)
    types = known_types(build)
    if not asked.source and not asked.kinds:
        _print_types(types, asked.as_json)
        return
    if not asked.source or not asked.kinds:
        missing = "--input FILE" if not asked.source else "--quant TYPE"
        raise UsageError(f"quantize needs {missing} too", "llamamgr quantize -i FILE -q Q4_K_M")
    orders = _orders(asked, types, paths)
    if asked.dry_run:
        _print_preview(build, orders, asked.as_json)
    else:
        print_made(quantize_all(build, orders, paths), paths, asked.as_json)


quantize.context_settings = context_settings  # type: ignore[attr-defined]


def _orders(asked: Asked, types: tuple[QuantType, ...], paths: Paths) -> list[Order]:
    """One for each type."""
    from llamamgr.core.quant_types import find_type
    from llamamgr.host.outputs import require_folder
    from llamamgr.instances.quantize import Order, several_targets

    path = find_source(asked.source, paths)
    kinds = [find_type(types, kind) for kind in asked.kinds or ()]
    targets = several_targets(path, kinds, asked.output, paths.models)
    for _, target in targets:
        require_folder(target.parent, asked.output, paths.models)
    flags = _flags(asked)
    return [Order(path, target, kind, flags, asked.threads, replace=asked.force) for kind, target in targets]


def _flags(asked: Asked) -> tuple[str, ...]:
    """For llama-quantize: what the options say, then what stands after --."""
    flags = [word for name in asked.tensor_type or [] for word in ("--tensor-type", name)]
    flags += ["--imatrix", str(Path(asked.imatrix).expanduser())] if asked.imatrix else []
    flags += ["--pure"] if asked.pure else []
    flags += ["--allow-requantize"] if asked.allow_requantize else []
    return (*flags, *asked.ctx.args)


def find_source(text: str, paths: Paths) -> Path:
    """The file that ``text`` names: a path, else a model of the index (its first part)."""
    from llamamgr.core.errors import NotFoundError
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    path = Path(text).expanduser()
    if path.is_file():
        return path.absolute()
    if text.endswith(".gguf") or text.startswith(("/", "./", "../", "~")):
        raise NotFoundError(f"there is no file {path}", "`llamamgr list` shows the models there are")
    return Path(Index(paths, load_config(paths)).resolve(text).path)


def quantize_all(build: Build, orders: list[Order], paths: Paths) -> list[Quantized]:
    """Carry out ``orders`` one after the other, telling sizes beforehand and progress as it goes."""
    from llamamgr.cli.stage_progress import telling
    from llamamgr.host.processes import terminate_as_interrupt
    from llamamgr.instances.quantize import quantize as perform
    from llamamgr.instances.quantize import require_absent

    for order in orders:  # the last of many should not fail for what was known at the start
        require_absent(order)
    with terminate_as_interrupt(), telling() as tell:
        return [perform(build, order, paths.data / "locks", tell) for order in orders]


def print_made(made: list[Quantized], paths: Paths, as_json: bool) -> None:
    """What was made, and by which name the index knows it."""
    from llamamgr.cli.stage_progress import clock

    names = indexed_names(paths)
    if as_json:
        documents = [msgspec.to_builtins(one) | {"name": names.get(one.paths[0], "")} for one in made]
        print_json(documents)
        return
    for one in made:
        bits = f", {one.sizes.bits:g} bits per weight" if one.sizes.bits else ""
        typer.echo(f"{one.paths[0]}: {human_size(one.size)}{bits}, in {clock(one.seconds)}")
        typer.echo(next_step(one.paths[0], names))


def indexed_names(paths: Paths) -> dict[str, str]:
    """Path of the first part → name, of every model that the index knows now."""
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    return {card.path: card.name for card in Index(paths, load_config(paths)).refresh().models}


def next_step(path: str, names: dict[str, str]) -> str:
    """What to do with the new file ``path``."""
    if path in names:
        return f'next: llamamgr run {names[path]} "hello"'
    return f"no folder of models holds it; to use it by name add {Path(path).parent} to models_dirs in config.toml"


def _print_types(types: tuple[QuantType, ...], as_json: bool) -> None:
    if as_json:
        print_json(types)
        return
    rows = [(kind.name, f"{kind.bits:g}" if kind.bits else "-", kind.note) for kind in types]
    print_table(("TYPE", "BITS/WEIGHT", "NOTE"), rows)


def _print_preview(build: Build, orders: list[Order], as_json: bool) -> None:
    from llamamgr.core.errors import MissingToolError
    from llamamgr.instances.quantize import preview

    found: list[tuple[Order, Sizes]] = []
    for order in orders:
        sizes = preview(build, order)
        if sizes is None:
            raise MissingToolError(
                "this llama-quantize has no --dry-run",
                "install a newer llama.cpp: llamamgr update",
            )
        found.append((order, sizes))
    if as_json:
        documents = [
            {"type": o.kind.name, "target": str(o.target), **msgspec.to_builtins(s)} for o, s in found
        ]
        print_json(documents)
        return
    rows = [
        (o.kind.name, human_size(s.before), human_size(s.after), f"{s.bits:g}", str(o.target))
        for o, s in found
    ]
    print_table(("TYPE", "BEFORE", "AFTER", "BITS/WEIGHT", "FILE"), rows)
    for order, sizes in found:
        for warning in sizes.warnings:
            typer.echo(f"warning: {order.kind.name}: {warning}", err=True)
