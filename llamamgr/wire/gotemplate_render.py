"""Rendering a template's nodes over values, with bounds on steps and text (source: text/template exec.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.wire import gotemplate_values as values
from llamamgr.wire.gotemplate_lexer import TemplateError
from llamamgr.wire.gotemplate_nodes import (
    Action,
    Branch,
    Chain,
    Constant,
    Dot,
    Field,
    Function,
    Jump,
    Nodes,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from llamamgr.wire.gotemplate_values import truth

_MOST_STEPS = 2_000_000
_LONGEST_PROMPT = 64 * 1024 * 1024


class _BreakError(Exception):
    """``{{break}}`` on its way out."""


class _ContinueError(Exception):
    """``{{continue}}`` on its way out."""


def render(nodes: Nodes, data: Mapping[str, Any], dates: tuple[str, str]) -> str:
    """What the nodes write for ``data``; ``TemplateError`` when a value does not allow what is asked of it."""
    return _Rendering(data, dates).run(nodes)


class _Rendering:
    """One execution: variables as a stack, and a bound on its steps and its text."""

    def __init__(self, data: Mapping[str, Any], dates: tuple[str, str]) -> None:
        self._variables: list[tuple[str, Any]] = [("$", data)]
        self._dates = dates
        self._written: list[str] = []
        self._length = 0
        self._steps = 0

    def run(self, nodes: Nodes) -> str:
        try:
            self._walk(nodes, self._variables[0][1])
        except TemplateError as error:
            text = str(error)
            raise TemplateError(text if text.startswith("template") else f"template: {text}") from None
        except RecursionError:
            raise TemplateError("template: exceeded maximum depth") from None
        return "".join(self._written)

    def _walk(self, nodes: Nodes, dot: Any) -> None:
        for node in nodes:
            self._step()
            match node:
                case Text(text):
                    self._write(text)
                case Action(pipeline):
                    value = self._pipeline(pipeline, dot)
                    if not pipeline.variables:
                        self._write(values.shown(value))
                case Branch():
                    self._branch(node, dot)
                case Jump(kind):
                    raise _BreakError if kind == "break" else _ContinueError

    def _branch(self, node: Branch, dot: Any) -> None:
        mark = len(self._variables)
        if node.kind == "range":
            self._range(node, dot)
        else:
            value = self._pipeline(node.pipeline, dot)
            if truth(value):
                self._walk(node.body, value if node.kind == "with" else dot)
            else:
                self._walk(node.otherwise, dot)
        del self._variables[mark:]

    def _range(self, node: Branch, dot: Any) -> None:
        pipeline = msgspec.structs.replace(node.pipeline, variables=())
        found = values.elements(self._pipeline(pipeline, dot))
        if not found:
            self._walk(node.otherwise, dot)
            return
        names, declares = node.pipeline.variables, node.pipeline.declares
        mark = len(self._variables)
        for key, value in found:
            self._step()
            for name, one in zip(names, (value,) if len(names) == 1 else (key, value), strict=False):
                self._set(name, one, declares)
            try:
                self._walk(node.body, value)
            except _ContinueError:
                pass
            except _BreakError:
                break
            finally:
                del self._variables[mark:]

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for place, command in enumerate(pipeline.commands):
            value = self._command(command, dot, (value,) if place else ())
        for name in pipeline.variables:
            self._set(name, value, pipeline.declares)
        return value

    def _command(self, command: tuple[Operand, ...], dot: Any, piped: tuple[Any, ...]) -> Any:
        first, *rest = command
        if isinstance(first, Function):
            return self._call(first.name, rest, dot, piped)
        if rest or piped:
            raise TemplateError("can't give argument to non-function")
        if first == Constant(None):
            raise TemplateError("nil is not a command")
        return self._operand(first, dot)

    def _call(self, name: str, operands: list[Operand], dot: Any, piped: tuple[Any, ...]) -> Any:
        if name not in ("and", "or"):
            arguments = [self._operand(operand, dot) for operand in operands]
            return values.call(name, (*arguments, *piped), self._dates)
        if not operands and not piped:
            raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if truth(value) == (name == "or"):
                return value
        return piped[0] if piped else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        self._step()
        match operand:
            case Dot():
                return dot
            case Constant(value):
                return value
            case Field(names):
                return self._descend(dot, names)
            case Variable(name, fields):
                return self._descend(self._value(name), fields)
            case Function(name):
                return self._call(name, [], dot, ())
            case Chain(of, fields):
                value = self._operand(of, dot)
                return self._descend(values.MISSING if value is None else value, fields)
            case Pipeline():
                return self._pipeline(operand, dot)

    def _descend(self, value: Any, names: tuple[str, ...]) -> Any:
        for name in names:
            value = values.field(value, name)
        return value

    def _value(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise TemplateError(f"undefined variable: {name}")

    def _set(self, name: str, value: Any, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for place in reversed(range(len(self._variables))):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return
        raise TemplateError(f"undefined variable: {name}")

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TemplateError(f"more than {_MOST_STEPS:,} steps")

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST_PROMPT:
            raise TemplateError(f"more than {_LONGEST_PROMPT:,} characters")
        self._written.append(text)
