"""``llamamgr bench``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.core.bench_records import Drop, Record
    from llamamgr.core.cards import Build
    from llamamgr.host.paths import Paths
    from llamamgr.instances.bench import History, Subject

context_settings = {"allow_extra_args": True}


def bench(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A model of `llamamgr list`, or a GGUF file.")] = "selftest",
    instances: Annotated[
        list[str] | None,
        typer.Option(
            "--instance",
            metavar="NAME[/BUILD]",
            help="Several are measured one after the other and compared.",
        ),
    ] = None,
    svg: Annotated[str, typer.Option(metavar="PATH", help="Draw the picture into this file too.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure builds with their own llama-bench, side by side and against what was measured before.

    pp = prompt processing, tg = text generation, in tokens per second: the median of the runs, ± standard deviation. Everything
    after -- goes to llama-bench as it is, such as -p 512 -n 128 -r 5 -ngl 0.
    """
    from llamamgr.cli.engine import ready_engine
    from llamamgr.cli.output import print_json
    from llamamgr.cli.quantize import find_source
    from llamamgr.core.bench_records import behind, drops
    from llamamgr.host.paths import Paths
    from llamamgr.instances.bench import History, Subject, choose
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    store = Store(paths)
    if svg:  # before the hour that measuring may take
        _require_place(svg, paths)
    if model.startswith("-"):  # `bench -- -p 64`: the first word behind -- is no model
        ctx.args, model = [model, *ctx.args], "selftest"
    builds = [
        choose(store, name) if "/" in name else ready_engine(paths, name)
        for name in dict.fromkeys(instances or [""])
    ]
    subject = Subject(model, str(find_source(model, paths)), tuple(ctx.args))
    now, past = _measure(builds, subject, History(paths))
    found, beaten = drops(now, past), behind(now)
    if svg:
        _draw(Path(svg).expanduser(), subject, [*now, *past])
    if as_json:
        print_json({"now": now, "past": past, "drops": found, "behind": beaten})
    else:
        _print_tables(now, past)
        _print_marks(found, beaten)
        if svg:
            typer.echo(f"picture: {svg}")


bench.context_settings = context_settings  # type: ignore[attr-defined]


def _measure(
    builds: list[Build], subject: Subject, history: History
) -> tuple[list[Record], tuple[Record, ...]]:
    """What was measured now, and what there is in ``history`` to compare it with."""
    from llamamgr.cli.stage_progress import telling
    from llamamgr.core.bench_records import former
    from llamamgr.host.processes import terminate_as_interrupt
    from llamamgr.instances.bench import measure

    now: list[Record] = []
    with terminate_as_interrupt(), telling() as tell:
        for build in builds:
            records = measure(build, subject, tell)
            now += records
            with _told("it is not kept for later"):
                history.add(records)
    past: tuple[Record, ...] = ()
    with _told("there is nothing to compare it with"):
        past = former(history.records([build.card.instance for build in builds]), now)
    return now, past


@contextlib.contextmanager
def _told(consequence: str) -> Iterator[None]:
    """What was measured is told, whatever becomes of its history."""
    from llamamgr.core.errors import LlamamgrError

    try:
        yield
    except (LlamamgrError, OSError) as error:
        told = error.what if isinstance(error, LlamamgrError) else str(error)
        print(f"warning: {consequence}: {told}", file=sys.stderr)


def _require_place(svg: str, paths: Paths) -> None:
    """``UsageError`` for what names no SVG file, ``NotFoundError`` where its folder is not there."""
    from llamamgr.core.errors import UsageError
    from llamamgr.host.outputs import require_folder

    path = Path(svg).expanduser()
    if path.suffix != ".svg" or path.is_dir():
        raise UsageError(f"{svg} names no SVG file", "end it with .svg, which browsers show")
    require_folder(path.absolute().parent, "", paths.state, "--svg")


def _draw(path: Path, subject: Subject, records: list[Record]) -> None:
    from llamamgr.core.bench_chart import draw
    from llamamgr.host.files import write_atomic

    write_atomic(path, draw(f"llama-bench of {subject.name}", records))


def _print_tables(now: list[Record], past: tuple[Record, ...]) -> None:
    import time

    from llamamgr.cli.list import age
    from llamamgr.cli.output import print_table

    first = {record.test: record for record in reversed(now)}
    rows = []
    for record in [*now, *past]:
        is_now = record in now
        speed = f"{record.speed:,.1f} ± {record.deviation:,.1f}"
        ratio = f"{record.speed / first[record.test].speed:.2f}" if first[record.test].speed else "-"
        when = "now" if is_now else age(time.time() - record.when)
        rows.append((record.instance, record.build, record.test, speed, ratio, when))
    rows.sort(key=lambda row: [record.test for record in now].index(row[2]))
    print_table(("INSTANCE", "BUILD", "TEST", "TOKENS/S", "RATIO", "MEASURED"), rows)


def _print_marks(found: tuple[Drop, ...], beaten: tuple[Drop, ...]) -> None:
    """What is slower than it was, and what is slower than its neighbour."""
    for drop in found:
        typer.echo(
            f"slower: {drop.now.instance} b{drop.now.number} {drop.now.test} is {drop.part:.0%} below {drop.before.build}"
            f" ({drop.now.speed:,.1f} after {drop.before.speed:,.1f})"
        )
        if drop.before.number < drop.now.number:
            typer.echo(f"next: {_bisect_command(drop)}")
    for drop in beaten:
        typer.echo(
            f"slower: {drop.now.instance} {drop.now.test} is {drop.part:.0%} below {drop.before.instance}"
            f" ({drop.now.speed:,.1f} against {drop.before.speed:,.1f})"
        )


def _bisect_command(drop: Drop) -> str:
    """What finds the commit."""
    ends = f"--good b{drop.before.number} --bad b{drop.now.number}"
    return f"llamamgr bisect --instance {drop.now.instance} {ends} --bench {drop.now.test[:2]} --drop 10%"
