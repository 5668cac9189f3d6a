"""What llama-bench measured, and what may be compared with what.

Source: llama-bench's jsonl of llama.cpp b11434. Fields come and go between versions: only those below
are read, and a missing one has its default.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

DROP = 0.10  # the part of the speed that must be gone for a drop to be marked

# Settings besides the test itself that make figures comparable; the build's own stay out of it.
_SETTINGS = (
    "cpu_info",
    "gpu_info",
    "n_batch",
    "n_ubatch",
    "n_threads",
    "type_k",
    "type_v",
    "n_gpu_layers",
    "n_cpu_moe",
    "flash_attn",
    "devices",
    "embeddings",
)


class Line(msgspec.Struct, frozen=True):
    """One line of jsonl, as far as it is read here."""

    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0
    avg_ts: float = 0.0
    stddev_ts: float = 0.0
    samples_ts: tuple[float, ...] = ()
    model_size: int = 0
    model_n_params: int = 0
    model_type: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One test of one build: ``speed`` is the median in tokens/s, ``deviation`` its standard deviation, ``when`` s since the epoch.

    ``settings`` says under what the figure was taken, in one string: equal strings may be compared.
    """

    instance: str
    build: str
    number: int
    commit: str
    model: str
    test: str
    speed: float
    deviation: float
    samples: tuple[float, ...] = ()
    settings: str = ""
    when: float = 0.0

    @property
    def subject(self) -> tuple[str, str, str]:
        """What was measured: model, test and settings."""
        return self.model, self.test, self.settings


class Drop(msgspec.Struct, frozen=True):
    """``now`` is slower than ``before`` by ``part`` (0.25 = a quarter), and by more than both deviate."""

    now: Record
    before: Record
    part: float


def parse_line(text: str) -> tuple[str, float, float, tuple[float, ...], str] | None:
    """Test, median, deviation, samples and settings of one line of jsonl; None when it is none."""
    if not text.startswith("{"):
        return None
    try:
        line = msgspec.json.decode(text, type=Line)
        everything = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
    test = test_name(line)
    if not test:
        return None
    speed = statistics.median(line.samples_ts) if line.samples_ts else line.avg_ts
    settings = [f"{line.model_type} {line.model_size} {line.model_n_params}"]
    settings += [f"{key}={everything[key]}" for key in _SETTINGS if key in everything]
    return test, speed, line.stddev_ts, line.samples_ts, ", ".join(settings)


def test_name(line: Line) -> str:
    """As llama-bench's own table has it: ``pp512``, ``tg128``, ``pp512+tg128``, ``tg128 @ d4096``; "" for no test."""
    parts = ([f"pp{line.n_prompt}"] if line.n_prompt else []) + ([f"tg{line.n_gen}"] if line.n_gen else [])
    return "+".join(parts) + (f" @ d{line.n_depth}" if parts and line.n_depth else "")


def former(history: Iterable[Record], now: Sequence[Record]) -> tuple[Record, ...]:
    """The last record of each other build of the same instances, for what was measured now; latest build first."""
    subjects = {record.subject for record in now}
    measured = {(record.instance, record.build) for record in now}
    instances = {record.instance for record in now}
    last: dict[tuple[str, str, tuple[str, str, str]], Record] = {}
    for record in history:
        known = record.instance in instances and (record.instance, record.build) not in measured
        key = (record.instance, record.build, record.subject)
        if known and record.subject in subjects and (key not in last or record.when >= last[key].when):
            last[key] = record
    return tuple(sorted(last.values(), key=lambda record: (-record.number, -record.when, record.test)))


def drops(now: Sequence[Record], past: Sequence[Record]) -> tuple[Drop, ...]:
    """Where a build measured now is slower than the fastest other of its instance, now or in the past, by more than ``DROP``."""
    found = []
    for record in now:
        others = [
            other
            for other in (*past, *now)
            if (other.instance, other.subject) == (record.instance, record.subject)
            and other.build != record.build
        ]
        best = max(others, key=lambda other: other.speed, default=None)
        if best is not None and is_drop(best, record):
            found.append(Drop(record, best, 1 - record.speed / best.speed))
    return tuple(found)


def behind(now: Sequence[Record]) -> tuple[Drop, ...]:
    """Where one of the builds measured side by side is slower than the fastest of another instance by more than ``DROP``.

    The settings may differ: they tell the device, and which is quicker is what is asked.
    """
    found = []
    for record in now:
        others = [o for o in now if o.instance != record.instance and o.subject[:2] == record.subject[:2]]
        best = max(others, key=lambda other: other.speed, default=None)
        if best is not None and is_drop(best, record):
            found.append(Drop(record, best, 1 - record.speed / best.speed))
    return tuple(found)


def is_drop(before: Record, now: Record, part: float = DROP) -> bool:
    """Slower by more than ``part``, and by more than the spread of both samples explains."""
    gone = before.speed - now.speed
    return gone > part * before.speed and gone > _spread(before) + _spread(now)


def _spread(record: Record) -> float:
    """Half the distance between the quartiles: one run that hung does not hide a drop, as it would in the standard deviation."""
    if len(record.samples) < 3:
        return record.deviation
    low, _, high = statistics.quantiles(record.samples, n=4)
    return (high - low) / 2
