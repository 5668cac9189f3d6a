"""What a Go template is made of: nodes, and the operands of their pipelines (source: text/template/parse node.go)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec


class Text(msgspec.Struct, frozen=True):
    text: str


class Dot(msgspec.Struct, frozen=True):
    """``.``"""


class Constant(msgspec.Struct, frozen=True):
    """A string, number, bool or nil."""

    value: str | int | float | bool | None


class Field(msgspec.Struct, frozen=True):
    """``.A.B``"""

    names: tuple[str, ...]


class Variable(msgspec.Struct, frozen=True):
    """``$x.A``; the name of ``$`` itself is ``$``."""

    name: str
    fields: tuple[str, ...] = ()


class Function(msgspec.Struct, frozen=True):
    name: str


class Chain(msgspec.Struct, frozen=True):
    """``(pipeline).A``"""

    of: Operand
    fields: tuple[str, ...]


class Pipeline(msgspec.Struct, frozen=True):
    """``$a, $b := command | command``; a command is its operands. ``declares`` tells ``:=`` from ``=``."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = True


Operand: TypeAlias = Dot | Constant | Field | Variable | Function | Chain | Pipeline


class Action(msgspec.Struct, frozen=True):
    """``{{ pipeline }}``"""

    pipeline: Pipeline


class Branch(msgspec.Struct, frozen=True):
    """``if``, ``with`` or ``range``: a body, and one for when the pipeline gives nothing."""

    kind: Literal["if", "with", "range"]
    pipeline: Pipeline
    body: Nodes
    otherwise: Nodes = ()


class Jump(msgspec.Struct, frozen=True):
    kind: Literal["break", "continue"]


Node: TypeAlias = Text | Action | Branch | Jump
Nodes: TypeAlias = tuple[Node, ...]
