"""llama-bench of builds, and the history that shows a regression: ``<state>/bench/<instance>.jsonl``, a line for each test."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from llamamgr.core.bench_records import Record, parse_line
from llamamgr.core.cards import Build, BuildCard
from llamamgr.core.errors import EngineError, MissingToolError, NotFoundError
from llamamgr.core.last_words import last_words
from llamamgr.core.stages import Stage, Tell
from llamamgr.host.files import disk_full_as_error, locked, write_atomic
from llamamgr.host.paths import Paths
from llamamgr.host.processes import scrubbed_environment, stream
from llamamgr.instances.store import Store

TOOL = "llama-bench"

_KEPT = 4000  # lines of an instance's history
_COUNT = re.compile(r"benchmark (\d+)/(\d+): (?:.* run (\d+)/(\d+)|starting|warmup)")
_LAST_LINES = 5
_HEARD = 400  # lines that are kept of what it says: its usage text alone has a hundred


class Subject(msgspec.Struct, frozen=True):
    """What is measured: the model's ``name`` for people, its ``path``, and further arguments of llama-bench."""

    name: str
    path: str
    arguments: tuple[str, ...] = ()


def choose(store: Store, text: str) -> Build:
    """The build that ``text``, ``instance/build``, means by the build's id or its bNNNN."""
    name, _, wanted = text.partition("/")
    builds = store.builds(name)
    found = [build for build in builds if wanted in (build.card.id, f"b{build.card.number}")]
    if not found:
        there = ", ".join(build.card.id for build in builds) or "none"
        raise NotFoundError(f"instance {name!r} has no build {wanted!r}", f"its builds: {there}")
    return found[0]


def measure(build: Build, subject: Subject, tell: Tell) -> tuple[Record, ...]:
    """Run the llama-bench of ``build``; one record for each test, in its order.

    ``MissingToolError`` when the build has none, ``EngineError`` with the lines that tell why when it fails.
    """
    program = build.tool(TOOL)
    if not Path(program).is_file():
        raise MissingToolError(f"build {build.card.id} has no {TOOL}", "run `llamamgr install --reinstall`")
    card, said = build.card, deque[str](maxlen=_HEARD)
    records: list[Record] = []
    title = f"measuring {card.instance} b{card.number}"
    tell(Stage(title))

    def hear(line: str) -> None:
        record = _record(line, card, subject)
        if record:
            records.append(record)
        elif count := _COUNT.search(line):
            _advance(count, title, tell)
        elif line.strip():
            said.append(line)

    argv = [program, "-m", subject.path, "-o", "jsonl", *_progress_flag(build), *subject.arguments]
    code = stream(argv, hear, env=scrubbed_environment(card.environment))
    if code or not records:
        told = last_words(said, _LAST_LINES) or (f"it said nothing and ended with status {code}",)
        reason = "\n".join(f"  {line}" for line in told)
        raise EngineError(
            f"llama-bench of {build.key} failed on {subject.name}:\n{reason}",
            "arguments behind -- are llama-bench's own; its --help has them",
        )
    return tuple(records)


def _record(line: str, card: BuildCard, subject: Subject) -> Record | None:
    """What a line of the tool tells of a test that is done; None for any other line."""
    found = parse_line(line)
    if found is None:
        return None
    test, speed, deviation, samples, settings = found
    return Record(
        instance=card.instance,
        build=card.id,
        number=card.number,
        commit=card.commit,
        model=subject.name,
        test=test,
        speed=round(speed, 3),
        deviation=round(deviation, 3),
        samples=samples,
        settings=settings,
        when=round(time.time(), 1),
    )


def _advance(count: re.Match[str], title: str, tell: Tell) -> None:
    """Tests count alike, and the runs inside of one too."""
    test, tests, run, runs = (int(number or 0) for number in count.groups())
    parts = 100 * (test - 1) + (100 * run // (runs + 1) if runs else 0)
    tell(Stage(title, parts, 100 * tests))


def _progress_flag(build: Build) -> tuple[str, ...]:
    outcome: list[str] = []
    stream([build.tool(TOOL), "--help"], outcome.append, env=scrubbed_environment(build.card.environment))
    return ("--progress",) if any("--progress" in line for line in outcome) else ()


class History:
    """What was measured before."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.state / "bench"
        self._locks = paths.data / "locks"

    def records(self, instances: Sequence[str]) -> tuple[Record, ...]:
        """All records of ``instances``, oldest first; lines that cannot be read are passed over."""
        return tuple(record for name in dict.fromkeys(instances) for record in self._read(self._file(name)))

    def add(self, records: Sequence[Record]) -> None:
        """Append; the oldest lines beyond a few thousand of an instance are forgotten."""
        for name in dict.fromkeys(record.instance for record in records):
            path = self._file(name)
            own = [record for record in records if record.instance == name]
            with (
                locked(self._locks / f"bench-{name}.lock", f"the history of {name}", wait=30.0),
                disk_full_as_error(path),
            ):
                kept = self._read(path)[-_KEPT:]
                if len(kept) == _KEPT:
                    write_atomic(path, _lines([*kept[len(own) :], *own]))
                else:
                    _append(path, _lines(own))

    def _file(self, instance: str) -> Path:
        return self._folder / f"{instance}.jsonl"

    def _read(self, path: Path) -> list[Record]:
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        decoder = msgspec.json.Decoder(Record)
        found = []
        for line in lines:
            try:
                found.append(decoder.decode(line))
            except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
                continue  # half a line of a killed process, or one of a later version
        return found


def _lines(records: Sequence[Record]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            data = b"\n" + data  # the last writer was killed in the middle of a line
        file.write(data)
