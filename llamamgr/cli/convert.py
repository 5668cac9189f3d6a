"""``llamamgr convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llamamgr.cli.options import taking
from llamamgr.cli.output import human_size, print_json
from llamamgr.cli.quantize import indexed_names, next_step, print_made

if TYPE_CHECKING:
    from llamamgr.core.cards import Build
    from llamamgr.core.quant_types import QuantType
    from llamamgr.core.stages import Tell
    from llamamgr.host.paths import Paths
    from llamamgr.instances.convert import Order
    from llamamgr.instances.quantize import Quantized

context_settings = {"allow_extra_args": True}


class Asked(msgspec.Struct, frozen=True):
    """What ``convert`` was asked for."""

    ctx: typer.Context
    source: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="DIR|ORG/REPO", help="A folder, or a repository of Hugging Face."
        ),
    ]
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PATH", help="A GGUF file, or a folder. [the own store]"),
    ] = ""
    outtype: Annotated[
        str, typer.Option("--type", "-t", metavar="TYPE", help="auto, f16, bf16, q8_0, f32, tq1_0, tq2_0")
    ] = "auto"
    quants: Annotated[
        list[str] | None,
        typer.Option(
            "--quant", "-q", metavar="TYPE", help="Quantize the result, such as to Q4_K_M; several allowed."
        ),
    ] = None
    keep: Annotated[bool, typer.Option("--keep", help="With --quant: keep the unquantized file too.")] = False
    mmproj: Annotated[
        bool, typer.Option("--mmproj", help="Make the projector of a vision or audio model too.")
    ] = False
    lora: Annotated[bool, typer.Option("--lora", help="The input is a LoRA adapter.")] = False
    base: Annotated[
        str, typer.Option(metavar="DIR|ORG/REPO", help="The adapter's base model. [what the adapter names]")
    ] = ""
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let Python code that the model brings run.")
    ] = False
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")] = False
    instance: Annotated[str, typer.Option("--instance", help="The instance whose scripts run.")] = ""
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False


class Plan(msgspec.Struct, frozen=True):
    """What is to be done: where the converted file goes ("" = named by type and model), and the quantised files to make of it."""

    asked: Asked
    name: str
    folder: Path
    file: str
    quants: tuple[tuple[QuantType, Path], ...]

    @property
    def keeps_model(self) -> bool:
        """Whether the converted model itself is wanted, and not only what is made of it."""
        return self.asked.keep or not self.quants


@taking(Asked)
def convert(asked: Asked) -> None:
    """Make a GGUF of a Hugging Face model or adapter, with llama.cpp's own scripts in a Python environment of their own.

    The environment (about 1 GB) is made at the first use. Everything after -- goes to the script as it is.
    """
    from llamamgr.cli.stage_progress import telling
    from llamamgr.core.errors import UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.host.processes import terminate_as_interrupt
    from llamamgr.host.settings import load_config
    from llamamgr.instances.store import Store

    if asked.lora and (asked.quants or asked.mmproj):
        raise UsageError("an adapter has no projector and is not quantized", "leave out --quant and --mmproj")
    paths = Paths.of_environment()
    build = Store(paths).choose(asked.instance, load_config(paths).instance)
    plan = _plan(asked, build, paths)
    with terminate_as_interrupt(), telling() as tell:
        files, made = _carry_out(plan, build, paths, tell)
    if asked.as_json:
        _print_json(files, made, paths)
    else:
        _print_outcome(files, made, paths, asked.lora)


convert.context_settings = context_settings  # type: ignore[attr-defined]


def _plan(asked: Asked, build: Build, paths: Paths) -> Plan:
    from llamamgr.core.quant_types import find_type
    from llamamgr.instances.convert import name_for
    from llamamgr.instances.quantize import known_types, several_targets

    name = name_for(asked.source)
    types = known_types(build) if asked.quants else ()
    kinds = [find_type(types, kind) for kind in asked.quants or ()]
    folder, file = _place(asked.output, paths.models, bool(kinds))
    targets = several_targets(Path(f"{name}.gguf"), kinds, asked.output, paths.models)
    return Plan(asked, name, folder, file, targets)


def _place(output: str, store: Path, quantizes: bool) -> tuple[Path, str]:
    """Folder and file name of the converted file; the name is "" where type and model give it."""
    from llamamgr.core.errors import UsageError

    if not output:
        return store, ""
    path = Path(output).expanduser().absolute()
    if output.endswith("/") or path.is_dir():
        return path, ""
    if path.suffix != ".gguf":
        raise UsageError(f"{output} names no GGUF file", "end it with .gguf, or with / for a folder")
    return path.parent, "" if quantizes else path.name  # a file named with --quant is the quantised one


def _carry_out(plan: Plan, build: Build, paths: Paths, tell: Tell) -> tuple[list[Path], list[Quantized]]:
    """The converted files that are kept, and the quantised ones."""
    from llamamgr.host.outputs import refuse_existing, require_folder, scratch_beside
    from llamamgr.instances import python_environment
    from llamamgr.instances.convert import check, script_of
    from llamamgr.instances.quantize import Order as Quantizing
    from llamamgr.instances.quantize import quantize

    targets = [target for _, target in plan.quants]
    for folder in (plan.folder, *(target.parent for target in targets)):
        require_folder(folder, plan.asked.output, paths.models)
    light = _orders(plan, tell, weights=False)
    for order in light:  # an hour's download should not end in a refusal
        check(order)
        script_of(build, order.kind)
    if not plan.asked.force:  # nor an hour's conversion
        for target in (*targets, *_places(plan, light)):
            refuse_existing(target)
    orders = _orders(plan, tell, weights=True)
    python = python_environment.ensure(paths, Path(build.root) / "share", tell)
    locks = paths.data / "locks"
    with scratch_beside(plan.folder / (plan.file or f"{plan.name}.gguf"), locks) as scratch:
        files = _converted(plan, orders, build, python, scratch, tell)
        made = [
            quantize(build, Quantizing(files[0], target, kind, replace=plan.asked.force), locks, tell)
            for kind, target in plan.quants
        ]
        return _revealed(plan, files), made


def _places(plan: Plan, orders: list[Order]) -> list[Path]:
    """Where the converted files that are kept will lie, as far as that is known."""
    from llamamgr.instances.convert import file_made

    kept = orders if plan.keeps_model else orders[1:]
    if plan.file:
        return [plan.folder / (f"mmproj-{plan.file}" if o.kind == "projector" else plan.file) for o in kept]
    return [plan.folder / name for order in kept if (name := file_made(order))]


def _converted(
    plan: Plan, orders: list[Order], build: Build, python: Path, scratch: Path, tell: Tell
) -> list[Path]:
    from llamamgr.instances.convert import convert as perform

    files = {}
    # a projector takes moments, and that there is none should not be told after an hour
    for order in reversed(orders):
        folder = scratch / order.kind
        folder.mkdir()
        files[order.kind] = perform(build, python, order, folder, tell)
    return [files[order.kind] for order in orders]


def _revealed(plan: Plan, files: list[Path]) -> list[Path]:
    """Put the converted files where they belong; the model's own only if it is kept."""
    from llamamgr.host.outputs import reveal

    shown = []
    for number, made in enumerate(files):
        if number == 0 and not plan.keeps_model:
            continue
        named = plan.file if number == 0 else (f"mmproj-{plan.file}" if plan.file else "")
        shown.append(reveal(made, plan.folder / (named or made.name), replace=plan.asked.force))
    return shown


def _orders(plan: Plan, tell: Tell, *, weights: bool) -> list[Order]:
    """The model or adapter, then its projector. What is in repositories is fetched first, the weights only where asked."""
    from llamamgr.instances.convert import Order

    asked = plan.asked
    model = _on_disk(asked.source, tell, weights=weights, code=asked.trust_remote_code)
    order = Order(
        model,
        plan.name,
        "adapter" if asked.lora else "model",
        asked.outtype.lower(),
        _base(asked, model, tell) if asked.lora else None,
        tuple(asked.ctx.args),
        asked.trust_remote_code,
    )
    if not asked.mmproj:
        return [order]
    return [order, msgspec.structs.replace(order, kind="projector")]


def _base(asked: Asked, adapter: Path, tell: Tell) -> Path:
    """The adapter's base model, without its weights."""
    from llamamgr.core.errors import UsageError
    from llamamgr.instances.convert import base_of

    named = asked.base or base_of(adapter)
    if not named:
        raise UsageError(
            f"{asked.source} does not name its base model", "name it: --base DIR or --base org/repo"
        )
    return _on_disk(named, tell, weights=False, code=asked.trust_remote_code)


def _on_disk(text: str, tell: Tell, *, weights: bool, code: bool) -> Path:
    """The folder ``text``, or the one that the repository ``text`` is fetched into."""
    from llamamgr.core.errors import NotFoundError
    from llamamgr.host.hub_snapshots import fetch
    from llamamgr.instances.convert import files_to_fetch, repository_in

    path = Path(text).expanduser()
    if path.is_dir():
        return path.absolute()
    repository = repository_in(text)
    if path.exists() or repository is None:
        what = f"{path} is no folder" if path.exists() else f"there is no folder {path}"
        raise NotFoundError(what, "name the folder that holds config.json, or a repository as org/name")
    name, revision = repository
    return fetch(name, revision, lambda names: files_to_fetch(names, weights=weights, code=code), tell)


def _print_json(files: list[Path], made: list[Quantized], paths: Paths) -> None:
    names = indexed_names(paths)
    every = [str(path) for path in files] + [path for one in made for path in one.paths]
    print_json([{"path": p, "size": Path(p).stat().st_size, "name": names.get(p, "")} for p in every])


def _print_outcome(files: list[Path], made: list[Quantized], paths: Paths, lora: bool) -> None:
    names = indexed_names(paths) if files else {}
    for path in files:
        typer.echo(f"{path}: {human_size(path.stat().st_size)}")
        if lora:
            typer.echo(f"next: llamamgr server -m MODEL -- --lora {path}")
        elif str(path) in names or not path.name.startswith("mmproj-"):
            typer.echo(next_step(str(path), names))
    print_made(made, paths, as_json=False)
