"""``scripts/bench proxy``: proxies in front of an upstream that is faster than they are, measured in turn, as one table.

All contestants run at once and are measured one after the other, round after round, so that what else the machine does touches
all alike; figures are medians of the rounds, and what counts are the ratios within one run. The contestant has one core, the load
and the upstream share another. CPU time tells more than rates where other work shares the cores. Memory is looked at some seconds
after the last request.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tests.bench import contestants
from tests.bench.contestants import Contestant, Cores
from tests.bench.load import Measured, measure, percentile

MB = 1_000_000
BODY = 20 * MB


class Amounts(msgspec.Struct, frozen=True):
    """How much is asked: rounds, small requests, streams for the time to the first byte, chunks of a stream."""

    rounds: int = 5
    requests: int = 6000
    firsts: int = 300
    chunks: int = 2000
    body: int = BODY
    settle: float = 6.0  # seconds after which memory is looked at


class Sample(msgspec.Struct, frozen=True):
    """One round of one contestant: requests/s at 1 and 16 connections, seconds, chunks/s at 16 and 64 streams, CPU seconds each."""

    alone: float
    together: float
    first_median: float
    first_late: float
    streams: float
    many_streams: float
    cpu_request: float
    cpu_chunk: float


class Row(msgspec.Struct, frozen=True):
    """All of one contestant; resident bytes before, after the rounds, and after one large body (0 = not sent)."""

    name: str
    sample: Sample
    before: int
    after: int
    after_large: int


async def _round(one: Contestant, amounts: Amounts) -> Sample:
    small, stream = one.dialect.once(4), one.dialect.stream(amounts.chunks)

    async def ask(question: contestants.Question, total: int, connections: int) -> tuple[Measured, float]:
        before = one.cpu_seconds()
        found = await measure(one.address, question, total, connections)
        return found, one.cpu_seconds() - before

    alone, _ = await ask(small, amounts.requests // 8, 1)
    together, cpu = await ask(small, amounts.requests, 16)
    firsts, _ = await ask(one.dialect.stream(16), amounts.firsts, 1)
    streams, cpu_streams = await ask(stream, 32, 16)
    many, cpu_many = await ask(stream, 64, 64)
    return Sample(
        alone=len(alone.firsts) / alone.seconds,
        together=len(together.firsts) / together.seconds,
        first_median=percentile(firsts.firsts, 0.5),
        first_late=percentile(firsts.firsts, 0.99),
        streams=streams.chunks / streams.seconds,
        many_streams=many.chunks / many.seconds,
        cpu_request=cpu / max(1, len(together.firsts)),
        cpu_chunk=(cpu_streams + cpu_many) / max(1, streams.chunks + many.chunks),
    )


async def _compare(running: Sequence[Contestant], amounts: Amounts) -> list[Row]:
    before, after = {}, {}
    samples: dict[str, list[Sample]] = {one.name: [] for one in running}
    for one in running:
        await measure(one.address, one.dialect.stream(4), 1, 1)  # loads its model
        before[one.name] = one.resident()
    for _ in range(amounts.rounds):
        for one in running:
            samples[one.name].append(await _round(one, amounts))
    await asyncio.sleep(amounts.settle)
    for one in running:
        after[one.name] = one.resident()
    seeing = [one for one in running if one.sees_images and one.process is not None]
    for one in seeing:
        await measure(one.address, one.dialect.large(amounts.body), 1, 1)
    await asyncio.sleep(amounts.settle)
    after_large = {one.name: one.resident() for one in seeing}
    return [
        Row(
            one.name,
            _median(samples[one.name]),
            before[one.name],
            after[one.name],
            after_large.get(one.name, 0),
        )
        for one in running
    ]


def _median(samples: Iterable[Sample]) -> Sample:
    columns = zip(*(msgspec.structs.astuple(sample) for sample in samples), strict=True)
    return Sample(*map(statistics.median, columns))


def run(amounts: Amounts, llama_swap: str = "", ollama: str = "") -> str:
    """Measure; the table, with the ratios that are promised, as Markdown."""
    cores = Cores.of_machine()
    cores.take(cores.load)
    starts = [
        contestants.direct,
        contestants.ours("llamamgr `/v1`", contestants.OPENAI),
        contestants.ours("llamamgr Ollama", contestants.OLLAMA),
        contestants.ours("llamamgr Anthropic", contestants.ANTHROPIC),
        contestants.bare,
    ]
    starts += [contestants.llama_swap(llama_swap)] if llama_swap else []
    starts += [contestants.ollama(ollama)] if ollama else []
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(start(cores)) for start in starts]
        rows = _loop(_compare(running, amounts))
    return "\n".join(
        [
            _heading(cores),
            "",
            *_table(rows),
            "",
            *_verdicts({row.name: row for row in rows}),
            *_notes(cores, rows),
        ]
    )


def _loop(work):
    try:
        from uvloop import Loop
    except ImportError:
        Loop = None
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(work)


def _heading(cores: Cores) -> str:
    processor = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    pinned = (
        "not pinned: this system has no affinity"
        if cores.load is None
        else (f"contestant on core {cores.contestant}, load and upstream on core {cores.load}")
    )
    python = platform.python_version()
    return f"{time.strftime('%Y-%m-%d')}, {processor}, {_count()} cores, Python {python}; {pinned}"


def _cpuinfo() -> list[str]:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # noqa: PTH123
        return file.read().splitlines()
    return []


def _count() -> int:
    import os

    return os.cpu_count() or 1


COLUMNS = (
    "",
    "requests/s, 1 connection",
    "16",
    "first byte p50, ms",
    "p99",
    "chunks/s, 16 streams",
    "64",
    "CPU µs per chunk",
    "per request",
    "RSS before, MB",
    "after",
    "after 20 MB",
)


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" + " ---: |" * (len(COLUMNS) - 1)]
    return lines + [f"| {' | '.join(_cells(row))} |" for row in rows]


def _cells(row: Row) -> list[str]:
    one = row.sample
    cpu = [f"{one.cpu_chunk * 1e6:.1f}", f"{one.cpu_request * 1e6:.0f}"] if row.before else ["", ""]
    sizes = [f"{size / MB:.0f}" if size else "" for size in (row.before, row.after, row.after_large)]
    rates = [f"{rate:,.0f}" for rate in (one.alone, one.together)]
    firsts = [f"{one.first_median * 1e3:.2f}", f"{one.first_late * 1e3:.2f}"]
    return [row.name, *rates, *firsts, f"{one.streams:,.0f}", f"{one.many_streams:,.0f}", *cpu, *sizes]


def _verdicts(rows: Mapping[str, Row]) -> list[str]:
    """Each promise with what was measured."""
    ours, bare, translated = rows["llamamgr `/v1`"], rows["bare aiohttp"], rows["llamamgr Ollama"]
    swap = rows.get("llama-swap")
    first = ours.sample.first_median
    told = [
        _at_least("`/v1` requests/s at 16 connections ÷ bare aiohttp", _ratio(ours, bare, "together"), 1.6),
        _at_least(
            "the same by CPU time, which other work does not disturb", _ratio(bare, ours, "cpu_request"), 1.6
        ),
        _at_least("`/v1` chunks/s at 16 streams ÷ bare aiohttp", _ratio(ours, bare, "streams"), 1.0),
        _at_least("`/v1` chunks/s at 64 streams ÷ bare aiohttp", _ratio(ours, bare, "many_streams"), 1.0),
        _at_least("the same by CPU time, both together", _ratio(bare, ours, "cpu_chunk"), 1.0),
        _at_least("Ollama ÷ `/v1`, chunks/s at 16 streams", _ratio(translated, ours, "streams"), 0.7),
        _at_least("Ollama ÷ `/v1`, chunks/s at 64 streams", _ratio(translated, ours, "many_streams"), 0.7),
    ]
    if swap is not None:
        told.append(_at_most("first byte ÷ llama-swap", first / swap.sample.first_median, 0.5))
    else:
        told.append(
            _at_most("first byte, ms (half of llama-swap's 0.73 as it was measured once)", first * 1e3, 0.365)
        )
    own = [row for name, row in rows.items() if name.startswith("llamamgr")]
    told.append(_at_most("RSS after the run, MB", max(row.after for row in own) / MB, 60))
    told.append(_at_most("RSS after a body of 20 MB, MB", max(row.after_large for row in own) / MB, 80))
    return ["| promise | target | measured | |", "| --- | ---: | ---: | --- |", *told]


def _ratio(one: Row, other: Row, column: str) -> float:
    """0.0 where there was too little to measure CPU time by."""
    measured = getattr(other.sample, column)
    return getattr(one.sample, column) / measured if measured else 0.0


def _at_least(what: str, measured: float, target: float) -> str:
    return f"| {what} | ≥ {target:g} | {measured:.2f} | {'held' if measured >= target else 'MISSED'} |"


def _at_most(what: str, measured: float, target: float) -> str:
    return f"| {what} | ≤ {target:g} | {measured:.2f} | {'held' if measured <= target else 'MISSED'} |"


def _notes(cores: Cores, rows: Sequence[Row]) -> list[str]:
    notes = []
    if cores.load is not None and cores.load == cores.contestant:
        notes.append("There is one core only: contestants, load and upstream share it.")
    if any(row.name == "Ollama" for row in rows):
        notes.append(
            "Ollama runs its own engine on the self-test model: its rates are of both together, its RSS of the server."
        )
    return ["", *notes] if notes else []
