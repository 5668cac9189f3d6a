"""The quantisation types of one llama-quantize, read from its own usage text, and what a run of it says.

Sources: tools/quantize/quantize.cpp of llama.cpp b11434 (table of types, usage, messages) and runs of that build.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import msgspec

from llamamgr.core.errors import UsageError
from llamamgr.core.quants import TENSOR_TYPES

_ROW = re.compile(r"^\s*(?:(\d+)\s+or\s+)?([A-Z][A-Z0-9_]*)\s*:\s*(\S.*?)\s*$", re.MULTILINE)
_BITS = re.compile(r"([\d.]+)\s+bpw")
_SIZE = re.compile(r"([\d.]+)G\b.*Llama-3-8B")
_ALIAS = re.compile(r"alias for (\w+)")
_LLAMA_3_8B = 8_030_261_248  # weights of the model whose GiB the table quotes
_PLAIN = {kind.name: 8 * kind.size for kind in TENSOR_TYPES.values() if kind.block == 1}

_COUNT = re.compile(r"\[\s*(\d+)/\s*(\d+)\] (\S+)")
_TOTAL = re.compile(r"(model|quant) size\s+=\s+([\d.]+) MiB(?: \(([\d.]+) BPW\))?")
_WARNING = re.compile(r"WARNING: (.*(?:fallback|imatrix|importance matrix).*)", re.IGNORECASE)
_FAILURES = (
    re.compile(r"failed to quantize: (.*)"),
    re.compile(r"^llama_quantize: error: (.*)", re.MULTILINE),
    re.compile(r"^llama_quantize: (invalid .*)", re.MULTILINE),
    re.compile(r"^(?:error|ERROR): (.*)", re.MULTILINE),
    re.compile(r"^\w+: (failed to .*|invalid .*|malformed .*)", re.MULTILINE),
)
_CAUSES = (re.compile(r"^gguf_init\w*: (failed to .*|.*invalid.*)", re.MULTILINE),)
_PREFIX = re.compile(r"^\w+: ")
_WHOLE = "is it a whole GGUF model? `llamamgr list -v` tells what is wrong with files"
_HINTS = (
    ("failed to load imatrix", "name a file that llama-imatrix wrote"),
    (
        "requantizing",
        "start from the F16 or BF16 file; or add --allow-requantize, which costs quality",
    ),
    (
        "matrix",
        "make one with llama-imatrix from text of your own, and pass it: --imatrix FILE",
    ),
    ("failed to load model", _WHOLE),
    ("corrupted", _WHOLE),
    ("file bounds", _WHOLE),
)


class QuantType(msgspec.Struct, frozen=True):
    """One type: its ``number`` (-1 = none), ``name``, the tool's own ``note``, and bits per weight (0.0 = it does not say).

    ``alias`` is the name that this one stands for ("" = itself).
    """

    number: int
    name: str
    note: str
    bits: float = 0.0
    alias: str = ""


class Sizes(msgspec.Struct, frozen=True):
    """What a run (or a dry run) said: bytes before and after, bits per weight after, and its warnings. 0 = not said."""

    before: int = 0
    after: int = 0
    bits: float = 0.0
    warnings: tuple[str, ...] = ()


def parse_types(usage: str) -> tuple[QuantType, ...]:
    """The types of a ``llama-quantize --help``; empty when the text holds no such table."""
    _, found, table = usage.partition("allowed quantization types")
    return tuple(_quant_type(*row) for row in _ROW.findall(table)) if found else ()


def _quant_type(number: str, name: str, note: str) -> QuantType:
    alias = _ALIAS.search(note)
    bits, size = _BITS.search(note), _SIZE.search(note)
    known = 0.0
    if name in _PLAIN:
        known = float(_PLAIN[name])
    elif bits:
        known = float(bits[1])
    elif size:
        known = round(float(size[1]) * 1024**3 * 8 / _LLAMA_3_8B, 2)
    return QuantType(int(number) if number else -1, name, note, known, alias[1] if alias else "")


def find_type(types: Sequence[QuantType], text: str) -> QuantType:
    """The type that ``text`` (a name in any case, or a number) means, aliases resolved; ``UsageError`` names near ones."""
    names = {kind.name: kind for kind in types}
    wanted = text.strip().upper()
    found = names.get(wanted)
    if found is not None:
        return names.get(found.alias, found)
    numbered = next(
        (kind for kind in types if str(kind.number) == wanted and kind.number >= 0 and not kind.alias), None
    )
    if numbered is not None:
        return numbered
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"this llama-quantize knows no type {text!r}", f"{meant}`llamamgr quantize` alone lists the types"
    )


def latest_count(text: str) -> tuple[int, int, str] | None:
    """The last ``[ 9/ 12] name`` in ``text``: done, total, tensor."""
    found = _COUNT.findall(text)
    return (int(found[-1][0]), int(found[-1][1]), found[-1][2]) if found else None


def parse_sizes(said: str) -> Sizes:
    """The sizes and warnings of a whole run."""
    sizes = {
        which: (round(float(mib) * 1024**2), float(bits or 0)) for which, mib, bits in _TOTAL.findall(said)
    }
    before, _ = sizes.get("model", (0, 0.0))
    after, bits = sizes.get("quant", (0, 0.0))
    return Sizes(before, after, bits, tuple(dict.fromkeys(_WARNING.findall(said))))


def failure_of(said: str) -> tuple[str, str]:
    """Why a run failed, in the tool's own words, and the hint that goes with it ("" = none known)."""
    if "allowed quantization types" in said:
        first = next(
            (
                _PREFIX.sub("", line.strip())
                for line in said.partition("usage:")[0].splitlines()
                if line.strip()
            ),
            "",
        )
        return f"it did not take its options{': ' if first else ''}{first}", ""
    reason = next((found[-1] for pattern in _FAILURES if (found := pattern.findall(said))), "") or _last(
        said.splitlines()
    )
    cause = next((found[-1] for pattern in _CAUSES if (found := pattern.findall(said))), "")
    told = f"{reason} ({cause})" if cause and cause not in reason else reason
    return told, next((hint for word, hint in _HINTS if word in reason), "")


def _last(lines: Iterable[str]) -> str:
    return next((line.strip() for line in reversed(list(lines)) if line.strip()), "it said nothing")
