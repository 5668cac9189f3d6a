"""A GGUF file in fewer bits per weight, by a build's own llama-quantize.

The tool overwrites without a question and leaves a broken file where it fails: it writes into a
scratch folder beside the target, and what it finished appears by rename.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from llamamgr.core import quant_types
from llamamgr.core.cards import Build
from llamamgr.core.errors import (
    ConflictError,
    DiskFullError,
    EngineError,
    LlamamgrError,
    MissingToolError,
    UsageError,
)
from llamamgr.core.gguf_facts import part_base
from llamamgr.core.quant_types import QuantType, Sizes
from llamamgr.core.quants import split_quant
from llamamgr.core.sizes import human_size
from llamamgr.core.stages import Stage, Tell
from llamamgr.host.compilers import free_space
from llamamgr.host.outputs import refuse_existing, reveal, scratch_beside
from llamamgr.host.processes import capture, scrubbed_environment, stream_text

TOOL = "llama-quantize"

_KEPT = 64 * 1024  # characters of output kept for errors and sizes
_LOOK_BACK = 200
_NO_ROOM = 4 * 1024 * 1024  # bytes free below which a failed write is the disk's fault
_SPARE = 16 * 1024 * 1024  # bytes besides the file itself
_PREVIEW_TIMEOUT = 120.0


class Order(msgspec.Struct, frozen=True):
    """One file to make: ``source`` (its first part when split) → ``target`` as ``kind``; ``flags`` are the tool's own.

    ``threads`` 0 = the tool's choice.
    """

    source: Path
    target: Path
    kind: QuantType
    flags: tuple[str, ...] = ()
    threads: int = 0
    replace: bool = False


class Quantized(msgspec.Struct, frozen=True):
    """What was made: ``paths`` (several only with --keep-split), what the tool said of sizes, and how long it took in seconds."""

    paths: tuple[str, ...]
    kind: QuantType
    sizes: Sizes
    size: int
    seconds: float


def known_types(build: Build) -> tuple[QuantType, ...]:
    """The types that the llama-quantize of ``build`` knows; ``MissingToolError`` without the tool."""
    types = quant_types.parse_types(_usage(build))
    if not types:
        raise EngineError(
            f"{build.tool(TOOL)} lists no types", "is it a llama-quantize? run it with --help to see"
        )
    return types


def target_of(source: Path, kind: QuantType, output: str, store: Path, several: bool) -> Path:
    """Where the result goes: ``output`` as a file, with ``{type}`` in it, or a folder; "" = the own ``store``.

    ``UsageError`` when one file would have to hold several types, or the name is none of a GGUF file.
    """
    name = f"{split_quant(part_base(source.stem))[0]}-{kind.name}.gguf"
    if not output:
        return store / name
    path = Path(output.replace("{type}", kind.name)).expanduser()
    if output.endswith("/") or path.is_dir():
        return path.absolute() / name
    if path.suffix != ".gguf":
        raise UsageError(f"{output} names no GGUF file", "end it with .gguf, or with / for a folder")
    if several and "{type}" not in output:
        raise UsageError(
            f"{output} cannot hold several types",
            "name a folder (ending with /), or write {type} into the name",
        )
    return path.absolute()


def preview(build: Build, order: Order) -> Sizes | None:
    """The sizes that ``order`` would give, computed by the tool itself without writing; None when it is too old for that.

    ``EngineError`` when it already knows that it would fail.
    """
    if "--dry-run" not in _usage(build):
        return None
    argv = [build.tool(TOOL), "--dry-run", *order.flags, str(order.source), order.kind.name]
    outcome = capture(argv, timeout=_PREVIEW_TIMEOUT, env=_environment(build))
    if not outcome.succeeded:
        raise _failure(order, outcome.output)
    return quant_types.parse_sizes(outcome.output)


def require_absent(order: Order) -> None:
    """``ConflictError`` when what ``order`` makes is there already and may not be replaced."""
    if order.replace:
        return
    refuse_existing(order.target)
    if "--keep-split" in order.flags:
        pattern = f"{glob.escape(order.target.stem)}-00001-of-*.gguf"
        for part in order.target.parent.glob(pattern):
            refuse_existing(part)


def quantize(build: Build, order: Order, locks: Path, tell: Tell) -> Quantized:
    """Make one file. Until it is whole nothing is seen of it; a failure or a kill leaves an existing target as it was.

    Raises ``ConflictError`` (the target exists, is the source, or is being written), ``DiskFullError`` before or while writing,
    ``EngineError`` with the tool's own reason. ``locks`` is the folder of lock files.
    """
    if order.target.exists() and order.target.samefile(order.source):
        raise ConflictError(f"{order.target} is the input itself", "name another with --output")
    require_absent(order)
    expected = preview(build, order)
    if expected is not None:
        _require_space(order, expected)
        _tell_sizes(order, expected, tell)
    began = time.monotonic()
    with scratch_beside(order.target, locks) as scratch:
        said = _run(build, order, scratch / order.target.name, tell)
        made = sorted(scratch.glob("*.gguf"))
        if not made:
            raise EngineError(
                f"{TOOL} said that it was done but wrote no GGUF file", "are the options behind -- right?"
            )
        shown = [reveal(path, order.target.parent / path.name, replace=order.replace) for path in made]
    return Quantized(
        paths=tuple(map(str, shown)),
        kind=order.kind,
        sizes=quant_types.parse_sizes(said),
        size=sum(path.stat().st_size for path in shown),
        seconds=round(time.monotonic() - began, 1),
    )


def _run(build: Build, order: Order, target: Path, tell: Tell) -> str:
    argv = [build.tool(TOOL), *order.flags, str(order.source), str(target), order.kind.name]
    if order.threads:
        argv.append(str(order.threads))
    ear = Ear(f"quantizing to {order.kind.name}", tell)
    code = stream_text(argv, ear, env=_environment(build))
    if code:
        raise _failure(order, ear.said, target.parent)
    return ear.said


class Ear:
    """Takes the tool's output in pieces of any length: counts go to ``tell``, the last of all is kept in ``said``."""

    def __init__(self, title: str, tell: Tell) -> None:
        self._title, self._tell, self._shown = title, tell, 0
        self.said = ""
        tell(Stage(title))

    def __call__(self, text: str) -> None:
        self.said = (self.said + text)[-_KEPT:]
        # a count may be cut in two by the pipe: look a little back
        count = quant_types.latest_count(self.said[-len(text) - _LOOK_BACK :])
        if count and count[0] != self._shown:
            self._shown = count[0]
            self._tell(Stage(self._title, count[0], count[1]))


def _failure(order: Order, said: str, folder: Path | None = None) -> LlamamgrError:
    reason, hint = quant_types.failure_of(said)
    if folder is not None and "iostream error" in reason and free_space(folder) < _NO_ROOM:
        return DiskFullError(
            f"no space left while writing {order.target}",
            "free some space, or name another disk with --output",
        )
    return EngineError(
        f"{order.source.name} was not quantized to {order.kind.name}: {reason}",
        hint or "options, those behind -- too, are llama-quantize's own; its --help has them",
    )


def _tell_sizes(order: Order, expected: Sizes, tell: Tell) -> None:
    sizes = f"{human_size(expected.before)} → {human_size(expected.after)}"
    tell(Stage(note=f"{order.kind.name}: {sizes}, {expected.bits:g} bits per weight"))
    for warning in expected.warnings:
        tell(Stage(note=f"warning: {warning}"))


def _require_space(order: Order, expected: Sizes) -> None:
    free, needed = free_space(order.target.parent), expected.after + _SPARE
    if free < needed:
        raise DiskFullError(
            f"{order.target} takes {human_size(needed)} with some to spare, and {human_size(free)} are free there",
            "free some space, or name another disk with --output",
        )


def _usage(build: Build) -> str:
    if not Path(build.tool(TOOL)).is_file():
        raise MissingToolError(
            f"build {build.card.id} has no {TOOL}",
            "run `llamamgr install --reinstall` to build it with its tools",
        )
    return capture([build.tool(TOOL), "--help"], timeout=30.0, env=_environment(build)).output


def _environment(build: Build) -> dict[str, str]:
    return scrubbed_environment(build.card.environment)


def several_targets(
    source: Path, kinds: Sequence[QuantType], output: str, store: Path
) -> tuple[tuple[QuantType, Path], ...]:
    """Each type once, with its target (``target_of``)."""
    unique = tuple(dict.fromkeys(kinds))
    return tuple((kind, target_of(source, kind, output, store, len(unique) > 1)) for kind in unique)
