"""What tells a good build from a bad one: the exit status of a command, or the speed that llama-bench measures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from llamamgr.core.bench_records import Record
from llamamgr.core.cards import Build
from llamamgr.core.errors import BuildFailedError, EngineError, MissingToolError, UsageError
from llamamgr.core.stages import Stage, Tell
from llamamgr.host.processes import scrubbed_environment, stream
from llamamgr.instances import bench

Verdict = Literal["good", "bad", "skipped"]

_SKIP = 125  # as `git bisect run` has it
_HIGHEST_BAD = 127


class Outcome(msgspec.Struct, frozen=True):
    """What a test of one build said; ``figure`` is its measurement, where it is one."""

    verdict: Verdict
    note: str
    figure: Record | None = None


Test = Callable[[Build, Tell], Outcome]


def command_test(command: Sequence[str]) -> Test:
    """Runs ``command`` with the build's programs first on PATH; exit status 0 is good, 1–127 bad, 125 skip, more ends the search.

    ``LLAMAMGR_BISECT_BIN``, ``LLAMAMGR_BISECT_COMMIT`` and ``LLAMAMGR_BISECT_NUMBER`` are in its environment.
    """

    def test(made: Build, tell: Tell) -> Outcome:
        folder = f"{made.root}/bin"
        environment = scrubbed_environment(made.card.environment) | {
            "LLAMAMGR_BISECT_BIN": folder,
            "LLAMAMGR_BISECT_COMMIT": made.card.commit,
            "LLAMAMGR_BISECT_NUMBER": str(made.card.number),
        }
        environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", "")])
        code = stream(command, lambda line: tell(Stage(note=f"  {line}")), env=environment)
        if code == 0:
            return Outcome("good", "exit status 0")
        if code == _SKIP:
            return Outcome("skipped", f"exit status {_SKIP}")
        if 0 < code <= _HIGHEST_BAD:
            return Outcome("bad", f"exit status {code}")
        told = f"signal {-code}" if code < 0 else f"status {code}"
        raise EngineError(
            f"`{command[0]}` ended with {told} on {made.card.id}: the search ends",
            "1 to 127 means bad, 125 skip",
        )

    return test


class Benchmark:
    """Measures ``test`` (``pp`` or ``tg``): bad is what is slower than the good end by more than ``drop`` (0.1 = a tenth).

    The good end and whatever looks bad are measured twice, and the faster counts: other work on the machine only ever slows.
    """

    def __init__(self, test: str, drop: float, subject: bench.Subject) -> None:
        self._test, self._drop = test, drop
        lengths = {"pp": ("-p", "512", "-n", "0"), "tg": ("-p", "0", "-n", "128")}[test]
        self._subject = msgspec.structs.replace(subject, arguments=(*lengths, *subject.arguments))
        self._limit = 0.0

    def __call__(self, made: Build, tell: Tell) -> Outcome:
        first = self._measured(made, tell)
        if first.figure is None or first.figure.speed >= self._limit > 0:
            return first
        again = self._measured(made, tell)
        return again if again.figure and again.figure.speed > first.figure.speed else first

    def _measured(self, made: Build, tell: Tell) -> Outcome:
        try:
            records = bench.measure(made, self._subject, tell)
        except (EngineError, MissingToolError) as error:
            return Outcome("skipped", error.what.splitlines()[-1].strip())
        record = next((record for record in records if record.test.startswith(self._test)), None)
        if record is None:
            return Outcome("skipped", f"llama-bench gave no {self._test}")
        said = f"{record.test} {record.speed:,.1f} ± {record.deviation:,.1f} tokens/s"
        return Outcome("bad" if record.speed < self._limit else "good", said, record)

    def begin(self, good: Outcome) -> None:
        """Take the measurement of the good end for what the others are held against."""
        if good.figure is None:
            raise BuildFailedError(
                f"the good end cannot be measured: {good.note}", "name another commit with --good"
            )
        self._limit = good.figure.speed * (1 - self._drop)


def parse_drop(text: str) -> float:
    """``10%``, ``10`` or ``0.1`` as 0.1; ``UsageError`` for anything that is no part of a whole."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    part = value / 100 if value >= 1 or text.strip().endswith("%") else value
    if not 0 < part < 1:
        raise UsageError(f"{text!r} is no drop", "write it as --drop 10%")
    return part


def require_program(command: Sequence[str]) -> None:
    """``MissingToolError`` when the program of ``command`` is not there: better now than after a build."""
    if not shutil.which(command[0]):
        raise MissingToolError(f"there is no program `{command[0]}`", "name it with its path")
