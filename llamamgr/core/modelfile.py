"""Modelfiles: text ⇄ what it says. Grammar and error texts are Ollama's (source: parser/parser.go, api/types.go).

Commands ignore case; ``#`` begins a comment line; a value goes to the end of its line, or from ``"`` or three of them to the
next one that ends a line.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llamamgr.core.errors import UsageError

COMMANDS = (
    *(
        "from",
        "license",
        "template",
        "system",
        "adapter",
        "renderer",
        "parser",
        "parameter",
        "message",
        "requires",
    ),
)
ROLES = ("system", "user", "assistant")
LONGEST = 4 * 1024 * 1024  # bytes of a Modelfile

_FLOATS = (
    *(
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    ),
)
_INTEGERS = (
    *("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"),
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"),
)
_BOOLEANS = ("use_mmap",)
_LISTS = ("stop",)
PARAMETERS = frozenset((*_FLOATS, *_INTEGERS, *_BOOLEANS, *_LISTS))
# Ollama takes them from old Modelfiles and does nothing with them
DEPRECATED = frozenset(
    (
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "numa"),
    )
)


class Modelfile(msgspec.Struct, frozen=True):
    """All that a Modelfile says. ``bases`` are the FROM lines, ``ignored`` parameters that do nothing any more."""

    bases: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = {}
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    ignored: tuple[str, ...] = ()


def parse_modelfile(data: bytes | str) -> Modelfile:
    """``UsageError`` with the line of a fault, in Ollama's words."""
    text = _decoded(data) if isinstance(data, bytes) else data
    if len(text) > LONGEST:
        raise UsageError(f"a Modelfile longer than {LONGEST:,} bytes", "put long texts elsewhere")
    said: dict[str, list[tuple[int, str]]] = {}
    for line, command, value in _commands(text):
        said.setdefault(command, []).append((line, value))
    if not said.get("from"):
        raise UsageError("no FROM line", "begin with FROM and a model's name or the path of a GGUF file")
    parameters, ignored = _parameters(said.get("parameter", []))
    return Modelfile(
        bases=_all(said, "from"),
        adapters=_all(said, "adapter"),
        template=_last(said, "template"),
        system=_last(said, "system"),
        parameters=parameters,
        messages=tuple(_message(line, value) for line, value in said.get("message", [])),
        licenses=_all(said, "license"),
        renderer=_last(said, "renderer") or "",
        parser=_last(said, "parser") or "",
        requires=_last(said, "requires") or "",
        ignored=ignored,
    )


def write_modelfile(modelfile: Modelfile) -> str:
    """Text that ``parse_modelfile`` reads as ``modelfile`` again."""
    lines = [f"FROM {_quoted(base)}" for base in modelfile.bases]
    lines += [f"ADAPTER {_quoted(adapter)}" for adapter in modelfile.adapters]
    for command in ("template", "system"):
        value = getattr(modelfile, command)
        if value is not None:
            lines.append(f"{command.upper()} {_quoted(value)}")
    for command in ("renderer", "parser", "requires"):
        if getattr(modelfile, command):
            lines.append(f"{command.upper()} {getattr(modelfile, command)}")
    for name, value in sorted(modelfile.parameters.items()):
        lines += [
            f"PARAMETER {name} {_quoted(_plain(one))}"
            for one in (value if isinstance(value, list) else [value])
        ]
    lines += [f"LICENSE {_quoted(text)}" for text in modelfile.licenses]
    lines += [f"MESSAGE {role} {_quoted(text)}" for role, text in modelfile.messages]
    return "\n".join(lines) + "\n"


def checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters given as values (JSON's); ``UsageError`` for a name or a type that is none, in Ollama's words."""
    checked: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in DEPRECATED or value is None:
            continue
        if name not in PARAMETERS:
            raise _unknown(name)
        checked[name] = _typed(name, value)
    return checked


def parameter_of(name: str, said: str | list[str]) -> tuple[str, Any]:
    """A PARAMETER as it was typed: its name in lower case and its value; ``UsageError`` as for a Modelfile, without a line."""
    name = name.lower()
    if name in _LISTS:
        return name, [said] if isinstance(said, str) else said
    if name not in PARAMETERS:
        raise _unknown(name)
    return name, _number(name, str(said), 0)


def _typed(name: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _LISTS:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UsageError(f'option "{name}" must be of an array of strings', "")
        return items
    if name in _BOOLEANS and not isinstance(value, bool):
        raise UsageError(f'option "{name}" must be of type boolean', "")
    if name in _INTEGERS:
        if not is_number or value != value or abs(value) > 2**63:
            raise UsageError(f'option "{name}" must be of type integer', "")
        return int(value)
    if name in _FLOATS and not is_number:
        raise UsageError(f'option "{name}" must be of type float32', "")
    return value


def _parameters(said: list[tuple[int, str]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    found: dict[str, Any] = {}
    ignored: list[str] = []
    for line, text in said:
        name, _, raw = text.partition(" ")
        name, value = name.lower(), _unquoted(raw.strip()) or ""
        if name in DEPRECATED:
            ignored.append(name)
        elif name in _LISTS:
            found.setdefault(name, []).append(value)
        elif name in PARAMETERS:
            found[name] = _number(name, value, line)
        else:
            raise _unknown(name, line)
    return found, tuple(dict.fromkeys(ignored))


def _number(name: str, value: str, line: int) -> Any:
    kind = "float" if name in _FLOATS else "int" if name in _INTEGERS else "bool"
    number = _read_number(kind, value)
    if number is None:
        where = f"(line {line}): " if line else ""
        raise UsageError(f"{where}invalid {kind} value [{value}]", f"PARAMETER {name} takes {kind}")
    return number


def _read_number(kind: str, value: str) -> int | float | bool | None:
    try:
        if kind == "bool":
            return {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}.get(
                value.lower()
            )
        number = float(value) if kind == "float" else int(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unknown(name: str, line: int = 0) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, PARAMETERS, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(PARAMETERS))}"
    where = f"(line {line}): " if line else ""
    return UsageError(f"{where}unknown parameter '{name}'", meant)


def _message(line: int, text: str) -> tuple[str, str]:
    role, _, content = text.partition(" ")
    if role.lower() not in ROLES:
        raise UsageError(f'(line {line}): message role must be one of "system", "user", or "assistant"', "")
    value = _unquoted(content.strip())
    return role.lower(), content.strip() if value is None else value


def _commands(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, command in lower case, value without its quotes (but for ``parameter`` and ``message``)."""
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        start, line = at + 1, lines[at].lstrip()  # white space at its end may belong to a longer text
        at += 1
        if not line or line.startswith("#"):
            continue
        word, rest = _split_word(line)
        command = word.lower()
        if command not in COMMANDS:
            known = ", ".join(f'"{name}"' for name in COMMANDS[:-1])
            raise UsageError(
                f'(line {start}): command must be one of {known}, or "{COMMANDS[-1]}"', f"{word!r} is none"
            )
        prefix, value = "", rest
        if command in ("parameter", "message"):
            name, value = _split_word(rest)
            prefix = f"{name} "
        if not value:
            raise UsageError(f"(line {start}): unexpected EOF", f"{word} needs a value")
        whole = value
        while (unquoted := _unquoted(whole.strip())) is None:
            if at >= len(lines):
                raise UsageError(f"(line {start}): unexpected EOF", "a quote is opened and not closed")
            whole += "\n" + lines[at]
            at += 1
        yield start, command, f"{prefix}{whole.strip()}" if prefix else unquoted


def _split_word(text: str) -> tuple[str, str]:
    parts = text.split(None, 1)
    return (parts[0], parts[1]) if len(parts) > 1 else (parts[0] if parts else "", "")


def _unquoted(text: str) -> str | None:
    """``text`` without its quotes; None while they are not closed."""
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def _quoted(text: str) -> str:
    if "\n" in text or '"' in text:
        return f'"""{text}"""'
    return f'"{text}"' if text != text.strip() or not text else text


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _all(said: Mapping[str, list[tuple[int, str]]], command: str) -> tuple[str, ...]:
    return tuple(value for _, value in said.get(command, []))


def _last(said: Mapping[str, list[tuple[int, str]]], command: str) -> str | None:
    values = said.get(command)
    return values[-1][1] if values else None


def _decoded(data: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            data, name = data[len(mark) :], encoding
            break
    else:
        name = "utf-8"
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        raise UsageError(f"the Modelfile is not {name.upper()}: {error.reason}", "save it as UTF-8") from None
