"""``llamamgr bisect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llamamgr.cli.options import taking

if TYPE_CHECKING:
    from llamamgr.core.cards import InstanceSpec
    from llamamgr.host.paths import Paths
    from llamamgr.instances.bisect import Finding, Means, Tested
    from llamamgr.instances.verdicts import Benchmark, Test

context_settings = {"allow_extra_args": True}


class Asked(msgspec.Struct, frozen=True):
    """What ``bisect`` was asked for."""

    ctx: typer.Context
    good: Annotated[str, typer.Option(metavar="REF", help="Where all was well: bNNNN, a tag or a commit.")]
    bad: Annotated[str, typer.Option(metavar="REF", help="Where it is not any more.")]
    measured: Annotated[
        str, typer.Option("--bench", metavar="pp|tg", help="Search a drop of llama-bench's speed.")
    ] = ""
    drop: Annotated[str, typer.Option(metavar="PERCENT", help="How much slower is bad.")] = "10%"
    model: Annotated[str, typer.Option("--model", "-m", help="The model to measure.")] = "selftest"
    repository: Annotated[
        str, typer.Option("--repo", metavar="URL|PATH", help="The git repository. [the instance's]")
    ] = ""
    instance: Annotated[str, typer.Option("--instance", help="Build as this instance is built.")] = ""
    arch: Annotated[str, typer.Option(metavar="ARCH", help="Build for another arch. [the instance's]")] = ""
    cmake_args: Annotated[
        list[str] | None, typer.Option("--cmake-args", metavar="ARGS", help="Further arguments for CMake.")
    ] = None
    parallel: Annotated[
        int, typer.Option("--parallel", "-j", min=0, help="Compilers at once. [as CPUs and memory allow]")
    ] = 0
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="NAME", help="Build only this program. [--bench: llama-bench; else all]"
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False


@taking(Asked)
def bisect(asked: Asked) -> None:
    """Find the commit of llama.cpp that slowed or broke something, by building and testing ever smaller ranges.

    With --bench the speed is measured (what is behind -- goes to llama-bench). Else a COMMAND behind -- is run for each build, its
    programs first on PATH and in LLAMAMGR_BISECT_BIN: exit status 0 = good, 125 = cannot be tested, up to 127 = bad. No instance
    is changed.
    """
    from llamamgr.cli.output import print_json
    from llamamgr.cli.stage_progress import telling
    from llamamgr.host.paths import Paths
    from llamamgr.host.processes import terminate_as_interrupt
    from llamamgr.instances.bisect import Range, source_url
    from llamamgr.instances.bisect import bisect as search

    paths = Paths.of_environment()
    test = _test(asked, paths)
    spec = _spec(asked.instance, paths)
    means = _means(asked, spec)
    wanted = Range(_url(asked.repository) or source_url(spec), asked.good, asked.bad)
    with terminate_as_interrupt(), telling() as tell:
        finding = search(wanted, means, test, paths, tell)
    if asked.as_json:
        print_json(finding)
    else:
        _print(finding)


bisect.context_settings = context_settings  # type: ignore[attr-defined]


def _test(asked: Asked, paths: Paths) -> Test | Benchmark:
    from llamamgr.cli.quantize import find_source
    from llamamgr.core.errors import UsageError
    from llamamgr.instances.bench import Subject
    from llamamgr.instances.verdicts import Benchmark, command_test, parse_drop, require_program

    measured, words = asked.measured, asked.ctx.args
    if measured:
        if measured not in ("pp", "tg"):
            raise UsageError(
                f"--bench {measured} measures nothing", "pp = prompt processing, tg = text generation"
            )
        return Benchmark(
            measured,
            parse_drop(asked.drop),
            Subject(asked.model, str(find_source(asked.model, paths)), tuple(words)),
        )
    if not words:
        raise UsageError(
            "there is nothing to test with", "add --bench tg, or -- COMMAND: llamamgr bisect … -- ./try.sh"
        )
    require_program(words)
    return command_test(words)


def _spec(name: str, paths: Paths) -> InstanceSpec:
    """The instance whose ways are followed; unnamed and absent, those of a new one."""
    from llamamgr.cli.chosen import chosen_instance
    from llamamgr.core.cards import InstanceSpec
    from llamamgr.instances.store import Store

    store, wanted = Store(paths), chosen_instance(paths, name).name
    found = store.instance(wanted) if name else store.find(wanted)
    return found.spec if found else InstanceSpec(wanted, arch="auto")


def _means(asked: Asked, spec: InstanceSpec) -> Means:
    """How to build: as the instance ``spec`` is built, but for what was said."""
    from llamamgr.cli.sources import cmake_words
    from llamamgr.instances.bisect import Means

    extra = cmake_words(asked.cmake_args) or ()
    return Means(
        msgspec.structs.replace(spec, arch=asked.arch or spec.arch, cmake_args=(*spec.cmake_args, *extra)),
        asked.parallel,
        tuple(asked.target or (["llama-bench"] if asked.measured else [])),
    )


def _url(repository: str) -> str:
    """``--repo`` with a path made absolute."""
    from pathlib import Path

    path = Path(repository).expanduser()
    return str(path.absolute()) if repository and path.is_dir() else repository


def _print(finding: Finding) -> None:
    from llamamgr.cli.output import print_table

    print_table(("BUILD", "COMMIT", "VERDICT", "WHY"), [_row(tested) for tested in finding.tested])
    if len(finding.suspects) > 1:
        typer.echo(f"the first bad commit is one of {len(finding.suspects)}, the others could not be tested:")
        for suspect in finding.suspects:
            typer.echo(f"  {suspect}")
    else:
        about = finding.about
        typer.echo(
            f"first bad: b{finding.number} {finding.commit} {about.subject} ({about.author}, {about.date})"
        )
    before = finding.before.outcome.figure if finding.before else None
    after = finding.after.outcome.figure if finding.after else None
    if before and after and before.speed:
        part = after.speed / before.speed - 1
        typer.echo(f"{after.test}: {before.speed:,.1f} → {after.speed:,.1f} tokens/s ({part:+.0%})")


def _row(tested: Tested) -> tuple[str, ...]:
    return f"b{tested.number}", tested.commit, tested.outcome.verdict, tested.outcome.note
