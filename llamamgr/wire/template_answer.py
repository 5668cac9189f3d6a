"""What a model says whose prompt was rendered here: text, split into thinking, answer and tool calls as its template writes them.

The engine's own parsers know its Jinja templates only. How a Go template marks thinking and calls is read off the template
itself, as Ollama does (source: thinking/template.go, tools/template.go, tools/tools.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from llamamgr.wire.gotemplate import Template, fields_of, operands_of
from llamamgr.wire.gotemplate_nodes import Action, Branch, Nodes, Text
from llamamgr.wire.neutral import Event, Failed, Finished, Logprob, TextDelta, ThinkingDelta, ToolCallDelta

_OPENING, _CLOSING = "<think>", "</think>"
_LAST_MARK = re.compile(r"(<[^<>\s]*>|\S+)\s*\Z")
_FIRST_MARK = re.compile(r"\A\s*(<[^<>\s]*>|\S+)")
_MOST_CALLS = 1000


class Marks(msgspec.Struct, frozen=True):
    """What surrounds thinking, and what stands before calls: ``{`` when only their JSON tells them."""

    opening: str = _OPENING
    closing: str = _CLOSING
    calls: str = "{"


def marks_of(template: Template) -> Marks:
    """The marks that a template writes around thinking and before calls of earlier turns."""
    opening, closing = _around_thinking(template.nodes) or (_OPENING, _CLOSING)
    return Marks(opening, closing, _before_calls(template.nodes))


class TemplateAnswer:
    """Reads one answer's events: feed it what the engine's completion gives, take what a chat would have given.

    ``thinks`` splits thinking off, which has begun when the prompt ended with its opening mark (``prompt``). ``tools`` are the
    names of functions that may be called; without any, everything is text. Calls come whole, at the end;
    ``most_calls`` bounds them.
    """

    def __init__(
        self,
        marks: Marks,
        *,
        prompt: str = "",
        thinks: bool = False,
        tools: Sequence[str] = (),
        most_calls: int | None = None,
    ) -> None:
        self._marks = marks
        self._most_calls = _MOST_CALLS if most_calls is None else most_calls
        self._tools = frozenset(tools)
        self._state = "answering"
        if thinks:
            self._state = "thinking" if prompt.rstrip().endswith(marks.opening) else "beginning"
        self._held = ""
        self._logprobs: tuple[Logprob, ...] = ()
        self._has_answered = False

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """What can be told after ``events``."""
        told: list[Event] = []
        for event in events:
            match event:
                case TextDelta(text, logprobs):
                    self._held += text
                    self._logprobs += logprobs
                    told += self._step(is_last=False)
                case Finished() | Failed():
                    told += self._step(is_last=True)
                    told += self._calls() if self._state == "calling" else []
                    told.append(event)
                case _:
                    told.append(event)
        return told

    def _step(self, *, is_last: bool) -> list[Event]:
        told: list[Event] = []
        while True:
            before = self._state
            match self._state:
                case "beginning":
                    self._begin(is_last)
                case "thinking":
                    told += self._think(is_last)
                case "resuming":
                    self._held = self._held.lstrip()
                    self._state = "answering" if self._held else "resuming"
                case "answering":
                    told += self._answer(is_last)
            if self._state == before:
                return told

    def _begin(self, is_last: bool) -> None:
        text = self._held.lstrip()
        if text.startswith(self._marks.opening):
            self._held = text[len(self._marks.opening) :]
            self._state = "thinking"
        elif is_last or (text and not self._marks.opening.startswith(text)):
            self._state = "answering"

    def _think(self, is_last: bool) -> list[Event]:
        if not self._has_answered:
            self._held = self._held.lstrip()
        thought, closing, rest = self._held.partition(self._marks.closing)
        if closing:
            self._held, self._state, self._has_answered = rest, "resuming", False
            return self._told(ThinkingDelta, thought.rstrip())
        # white space may belong to the end of the thought, which is told without it
        kept = len(self._held.rstrip()) if not is_last else len(self._held)
        kept -= 0 if is_last else _overlap(self._held[:kept], self._marks.closing)
        kept = len(self._held[:kept].rstrip()) if not is_last else kept
        thought, self._held = self._held[:kept], self._held[kept:]
        self._has_answered = self._has_answered or bool(thought)
        return self._told(ThinkingDelta, thought)

    def _answer(self, is_last: bool) -> list[Event]:
        if not self._tools:
            text, self._held = self._held, ""
            return self._told(TextDelta, text)
        mark = self._marks.calls
        if mark in "{[":
            return self._bare_answer(is_last)
        at = self._held.find(mark)
        if at >= 0:
            self._state = "calling"
        elif is_last:
            text, self._held = self._held, ""
            return self._told(TextDelta, text)
        else:
            at = len(self._held) - _overlap(self._held, mark)
        # white space before a call is no part of the answer
        at = len(self._held[:at].rstrip())
        text, self._held = self._held[:at], self._held[at:]
        return self._told(TextDelta, text)

    def _bare_answer(self, is_last: bool) -> list[Event]:
        """Calls without a mark are all of an answer or none of it."""
        begun = self._held.lstrip()
        if not self._has_answered and begun[:1] in ("{", "["):
            self._state = "calling"
            return []
        if not begun and not is_last and not self._has_answered:
            return []
        self._has_answered = True
        text, self._held = self._held, ""
        return self._told(TextDelta, text)

    def _told(self, kind: type[TextDelta] | type[ThinkingDelta], text: str) -> list[Event]:
        if not text:
            return []
        logprobs, self._logprobs = self._logprobs, ()
        return [kind(text, logprobs)]

    def _calls(self) -> list[Event]:
        """The calls in what was held back; when there is none, it was text."""
        calls = [call for value in _values(self._held) for call in self._calls_in(value)]
        if not calls:
            return self._told(TextDelta, self._held)
        return [
            ToolCallDelta(place, "", name, arguments)
            for place, (name, arguments) in enumerate(calls[: self._most_calls])
        ]

    def _calls_in(self, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, list):
            for item in value:
                yield from self._calls_in(item)
        if not isinstance(value, dict):
            return
        inner = value.get("function")
        if isinstance(inner, dict):
            value = inner
        name = value.get("name") or value.get("tool_name") or inner
        arguments: Any = next((value[key] for key in ("arguments", "parameters", "args") if key in value), {})
        if isinstance(arguments, str):
            arguments = next(iter(_values(arguments)), None)
        if isinstance(name, str) and name in self._tools and isinstance(arguments, dict):
            yield name, msgspec.json.encode(arguments).decode()


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that may become ``mark``."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def _values(text: str) -> Iterator[Any]:
    """Every outermost JSON object or array in ``text``, other text between them passed over."""
    at = failures = 0
    while failures < _MOST_CALLS and (start := _next_start(text, at)) >= 0:
        end = _end_of(text, start)
        if end < 0:
            return
        try:
            yield msgspec.json.decode(text[start:end].encode("utf-8", "surrogatepass"))
            at = end
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            at, failures = start + 1, failures + 1


def _next_start(text: str, at: int) -> int:
    found = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(found, default=-1)


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _end_of(text: str, start: int) -> int:
    """Where the bracket at ``start`` is closed; -1 when it is not."""
    depth = 0
    for found in _BRACKET.finditer(text, start):
        if found[0] in "[{":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
            if not depth:
                return found.end()
    return -1


def _around_thinking(nodes: Nodes) -> tuple[str, str] | None:
    for place, node in enumerate(nodes):
        if isinstance(node, Branch):
            found = _around_thinking(node.body) or _around_thinking(node.otherwise)
            if found:
                return found
        if isinstance(node, Action) and any(
            fields_of(operand)[-1:] == ("Thinking",) for operand in operands_of((node,))
        ):
            before = nodes[place - 1] if place else None
            after = nodes[place + 1] if place + 1 < len(nodes) else None
            opening = _LAST_MARK.search(before.text) if isinstance(before, Text) else None
            closing = _FIRST_MARK.search(after.text) if isinstance(after, Text) else None
            if opening and closing:
                return opening[1], closing[1]
    return None


def _before_calls(nodes: Nodes) -> str:
    branch = _calling_branch(nodes)
    text = _first_text(branch.body) if branch else ""
    return text.partition("{")[0].strip() or "{"


def _calling_branch(nodes: Nodes) -> Branch | None:
    for node in nodes:
        if isinstance(node, Branch):
            shell = msgspec.structs.replace(node, body=(), otherwise=())
            if any("ToolCalls" in fields_of(operand) for operand in operands_of((shell,))):
                return node
            found = _calling_branch(node.body) or _calling_branch(node.otherwise)
            if found:
                return found
    return None


def _first_text(nodes: Nodes) -> str:
    for node in nodes:
        if isinstance(node, Text) and node.text.strip():
            return node.text
        if isinstance(node, Branch) and (text := _first_text(node.body)):
            return text
    return ""
