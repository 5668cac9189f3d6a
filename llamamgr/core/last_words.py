"""What of a failed program's output tells why: the lines that speak of a failure, not the usage text or chatter after them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FAILURES = re.compile(
    r"\b(errors?|fatal|fail(s|ed|ure)?|invalid|unknown|unrecogni[sz]ed|unsupported|unable|cannot|can't|could ?n[o']t"
    r"|no such|not found|not supported|denied|out of memory|abort(ed|ing)?|assert(ion)?|exception|terminate called)\b"
    r"|_ASSERT\b|^[\d.]+ E ",
    re.IGNORECASE,
)
_USAGE = re.compile(r"usage:", re.IGNORECASE)
_STAMP = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z] ")  # time and level of llama.cpp's logs
_LOST = (
    r"(?:(?:CUDA|ROCm|HIP|SYCL|MUSA|CANN) error\b|(?:terminate called|\s*what\(\):).*DeviceLost|NVRM: Xid)"
)
_ABORTED = r"[^\s:]+\.(?:c|cc|cpp|cu|cuh|h|hpp|m|mm|comp):\d+: "  # ggml's own, with the line of its source
_DYING = re.compile(
    rf"(?:[\d.]+ [A-Z] )?(?:{_LOST}|{_ABORTED}|GGML_ASSERT\(|terminate called|\s*what\(\):|ggml_\w+: .*(?:error|fail|out of memory)"
    r"|.*\b(?:out of memory|failed to allocate)\b|double free|malloc|free\(\)|corrupted|\*\*\* |libc\+\+abi)"
)
# what an engine says whose device is lost while its process lives on
DEVICE_LOST = re.compile(rf"^(?:[\d.]+ [A-Z] )?(?:{_ABORTED})?(?:{_LOST}|GGML_ASSERT\()", re.MULTILINE)
_FOLDERS = re.compile(r"(?<![\w./:])(?:unix://)?/(?:[^\s/'\"]+/)+")
_LONGEST = 240


def last_words(output: Sequence[str], most: int, *, only_failures: bool = False) -> tuple[str, ...]:
    """At most ``most`` lines of ``output``, in its order, that best say why it ended.

    Those that speak of a failure, where any do: the first ones, which name the cause, and the last. A usage text is left out then,
    as llama.cpp's tools print theirs after the mistake. Else the last lines, or none with ``only_failures``.
    """
    lines = [line.strip() for line in output if line.strip()]
    usage = next((number for number, line in enumerate(lines) if _USAGE.match(line)), len(lines))
    told = [line for line in lines[:usage] if _FAILURES.search(line)]
    told = told or [line for line in lines[usage:] if _FAILURES.match(line)]
    if not told:
        return () if only_failures else tuple(_shown(line) for line in lines[-most:])
    distinct = tuple(dict.fromkeys(map(_shown, told)))
    return distinct if len(distinct) <= most else (*distinct[: most - 1], distinct[-1])


def own_last_words(output: Sequence[str], most: int) -> tuple[str, ...]:
    """Of an engine that served: only what a program says as it dies, or as its device is lost, where a line begins with that.

    Its log has texts of its clients, too (a grammar that cannot be parsed, a body that is no JSON): nobody else's business.
    """
    told = dict.fromkeys(_shown(line.rstrip()) for line in output if _DYING.match(line))
    distinct = tuple(told)
    return distinct if len(distinct) <= most else (*distinct[: most - 1], distinct[-1])


def _shown(line: str) -> str:
    return _STAMP.sub("", line)[:_LONGEST]


def without_folders(text: str) -> str:
    """``text`` with each absolute path cut to its last name: clients need not know where things lie on this machine."""
    return _FOLDERS.sub("…/", text)
