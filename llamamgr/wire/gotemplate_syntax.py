"""Go's ``text/template`` language: tokens → nodes.

Everything that Modelfiles use is here: text with trim marks, comments, ``if`` / ``else if`` / ``with`` / ``range`` with
``else``, ``break``, ``continue``, variables, pipelines, literals, field chains. ``define``, ``block`` and ``template`` are
refused by name. Error texts are those of Go's parser (source: text/template/parse lex.go, parse.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from llamamgr.wire.gotemplate_lexer import LexicalError, TemplateError, Token, error_at, tokens
from llamamgr.wire.gotemplate_nodes import (
    Action,
    Branch,
    Chain,
    Constant,
    Dot,
    Field,
    Function,
    Jump,
    Node,
    Nodes,
    Operand,
    Pipeline,
    Text,
    Variable,
)

LONGEST = 256 * 1024  # characters of a template; the longest of Ollama's library has 20,000
_DEEPEST = 100


def parse(text: str, functions: frozenset[str]) -> Nodes:
    """The nodes of ``text``; ``functions`` are those that may be called. ``TemplateError`` in Go's words."""
    if len(text) > LONGEST:
        raise TemplateError(f"template: longer than {LONGEST:,} characters")
    return _Parser(tokens(text), functions).all()


_KEYWORDS = ("if", "else", "end", "range", "with", "break", "continue", "define", "block", "template", "nil")


_STARTS = frozenset(("dot", "field", "variable", "word", "number", "string", "raw", "char", "open"))


class _Read:
    """Tokens by their place, read when they are asked for: of two faults the first in the text is told."""

    def __init__(self, tokens: Iterator[Token]) -> None:
        self._tokens = tokens
        self._read: list[Token] = []
        self.action_line = 0  # where the action began that is being read

    def __getitem__(self, place: int) -> Token:
        while len(self._read) <= place:
            try:
                self._read.append(next(self._tokens))
            except LexicalError as error:
                raise self._placed(error) from None
        return self._read[place]

    def _placed(self, error: LexicalError) -> TemplateError:
        extra = ""
        if self.action_line and self.action_line != error.line:
            started = f" started at :{self.action_line}"
            extra = started if error.message.endswith(" action") else f" in action{started}"
        return error_at(error.line, error.message + extra)


class _Parser:
    """One pass over the tokens; ``_variables`` holds what is in scope."""

    def __init__(self, tokens: Iterator[Token], functions: frozenset[str]) -> None:
        self._tokens = _Read(tokens)
        self._functions = functions
        self._at = 0
        self._variables = ["$"]
        self._depth = 0
        self._loops = 0

    def all(self) -> Nodes:
        nodes, stop = self._list()
        if stop:
            raise self._error(f"unexpected {{{{{stop}}}}}")
        return nodes

    # -- lists of nodes

    def _list(self) -> tuple[Nodes, str]:
        """Nodes up to ``{{end}}`` or ``{{else``, or to the end of all ("")."""
        nodes: list[Node] = []
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("nested too deeply")
        while True:
            token = self._next()
            if token.kind == "eof":
                stop = ""
                break
            if token.kind == "text":
                nodes.append(Text(token.text))
                continue
            self._tokens.action_line = token.line
            word = self._peek_past_space()
            if word.kind == "word" and word.text in ("end", "else"):
                self._skip_space()
                self._next()
                stop = word.text
                break
            nodes.append(self._action(word))
            self._tokens.action_line = 0
        self._depth -= 1
        return tuple(nodes), stop

    def _action(self, word: Token) -> Node:
        keyword = word.text if word.kind == "word" else ""
        if keyword in ("if", "with", "range"):
            self._skip_space()
            self._next()
            return self._branch(keyword)
        if keyword in ("break", "continue"):
            self._skip_space()
            self._next()
            if not self._loops:
                raise self._error(f"{{{{{keyword}}}}} outside {{{{range}}}}")
            self._right(keyword)
            return Jump("break" if keyword == "break" else "continue")
        if keyword in ("define", "block", "template"):
            raise self._error(f"{{{{{keyword}}}}} is not supported here")
        return Action(self._pipeline("command", "right"))

    def _branch(self, keyword: str) -> Branch:
        kind: Literal["if", "with", "range"] = (
            "if" if keyword == "if" else "with" if keyword == "with" else "range"
        )
        scope = len(self._variables)
        pipeline = self._pipeline(kind, "right")
        self._loops += kind == "range"
        body, stop = self._list()
        self._loops -= kind == "range"
        otherwise: Nodes = ()
        if stop == "else":
            self._skip_space()
            after = self._tokens[self._at]
            if after.kind == "word" and after.text == kind and kind != "range":
                # `else if`: the inner branch takes the one `end`
                self._next()
                otherwise = (self._branch(kind),)
                del self._variables[scope:]
                return Branch(kind, pipeline, body, otherwise)
            self._right("input")
            otherwise, stop = self._list()
            if stop == "else":
                raise self._error("expected end; found {{else}}")
        if not stop:
            raise self._error("unexpected EOF")
        self._right("end")
        del self._variables[scope:]
        return Branch(kind, pipeline, body, otherwise)

    # -- inside an action

    def _pipeline(self, context: str, end: str) -> Pipeline:
        variables, declares = self._declarations(context)
        commands: list[tuple[Operand, ...]] = []
        while True:
            self._skip_space()
            token = self._tokens[self._at]
            if token.kind == end:
                self._next()
                break
            if token.kind not in _STARTS:
                self._next()
                raise self._unexpected(token, context)
            commands.append(self._command())
        if not commands:
            raise self._error(f"missing value for {context}")
        for place, command in enumerate(commands):
            if place and isinstance(command[0], Dot | Constant):
                raise self._error(f"non executable command in pipeline stage {place + 1}")
        return Pipeline(tuple(commands), variables, declares)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """``$a :=``, ``$a =`` or, for range, ``$a, $b :=``; nothing is consumed when there are none."""
        start, names = self._at, []
        while True:
            self._skip_space()
            token = self._tokens[self._at]
            if token.kind != "variable":
                break
            self._next()
            names.append(token.text)
            self._skip_space()
            sign = self._tokens[self._at].kind
            if self._tokens[self._at].text == "," and context == "range" and len(names) == 1:
                self._next()
                continue
            if self._tokens[self._at].text == "," and names:
                raise self._error(f"too many declarations in {context}")
            if sign in ("declare", "assign"):
                self._next()
                # in scope from here on; what has no value yet is found out when it is rendered
                self._variables += names
                return tuple(names), sign == "declare"
            break
        self._at = start
        return (), True

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind in ("right", "close"):
                self._at -= 1
            elif token.kind != "pipe":
                raise self._unexpected(token, "operand")
            break
        if not operands:
            raise self._error("empty command")
        return tuple(operands)

    def _operand(self) -> Operand | None:
        term = self._term()
        if term is None:
            return None
        fields: list[str] = []
        while self._tokens[self._at].kind == "field":
            fields.append(self._next().text[1:])
        if not fields:
            return term
        match term:
            case Field(names):
                return Field((*names, *fields))
            case Variable(name):
                return Variable(name, tuple(fields))
            case Dot() | Constant():
                raise self._error(f'unexpected "." after term "{fields[0]}"')
            case _:
                return Chain(term, tuple(fields))

    def _term(self) -> Operand | None:
        token = self._tokens[self._at]
        match token.kind:
            case "open":
                self._next()
                self._depth += 1
                if self._depth > _DEEPEST:
                    raise self._error("nested too deeply")
                inner = self._pipeline("parenthesized pipeline", "close")
                self._depth -= 1
                return inner
            case "word":
                self._next()
                return self._word(token)
            case "variable":
                self._next()
                self._require(token.text)
                return Variable(token.text)
            case "field":
                self._next()
                return Field((token.text[1:],))
            case "dot":
                self._next()
                return Dot()
            case "string" | "raw" | "char" | "number":
                self._next()
                return Constant(self._literal(token))
            case _:
                return None

    def _word(self, token: Token) -> Operand:
        constants: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Constant(constants[token.text])
        if token.text in _KEYWORDS:
            raise self._error(f"unexpected <{token.text}> in operand")
        if token.text not in self._functions:
            raise self._error(f'function "{token.text}" not defined')
        return Function(token.text)

    def _literal(self, token: Token) -> str | int | float:
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "string":
            return self._unescaped(token.text[1:-1])
        if token.kind == "char":
            character = self._unescaped(token.text[1:-1])
            if len(character) != 1:
                raise self._error(f"malformed character constant: {token.text}")
            return ord(character)
        try:
            return int(token.text.replace("_", ""), 0)
        except ValueError:
            pass
        try:
            return int(token.text) if re.fullmatch(r"[+-]?0\d+", token.text) else float(token.text)
        except ValueError:
            raise self._error(f"bad number syntax: {token.text!r}") from None

    def _unescaped(self, text: str) -> str:
        def one(match: re.Match[str]) -> str:
            code = match[1]
            if code in _ESCAPES:
                return _ESCAPES[code]
            number = int(code[1:], 16) if code[0] in "xuU" else int(code, 8)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise self._error(f'invalid syntax: "{text}"')
            return chr(number)

        if re.search(_BAD_ESCAPE, text):
            raise self._error(f'invalid syntax: "{text}"')
        return re.sub(_ESCAPE, one, text)

    # -- tokens

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _skip_space(self) -> None:
        while self._tokens[self._at].kind == "space":
            self._at += 1

    def _peek_past_space(self) -> Token:
        at = self._at
        while self._tokens[at].kind == "space":
            at += 1
        return self._tokens[at]

    def _right(self, context: str) -> None:
        self._skip_space()
        token = self._next()
        if token.kind != "right":
            raise self._unexpected(token, context)

    def _require(self, name: str) -> None:
        if name not in self._variables:
            raise self._error(f'undefined variable "{name}"')

    def _unexpected(self, token: Token, context: str) -> TemplateError:
        shown = f"<{token.text}>" if token.kind == "word" else f'"{token.text}"'
        return self._error(f"unexpected {shown} in {context}")

    def _error(self, message: str) -> TemplateError:
        return error_at(self._tokens[max(self._at - 1, 0)].line, message)


_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_ESCAPE = r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)"
_BAD_ESCAPE = r"(?<!\\)(?:\\\\)*\\(?!x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|[abfnrtv\\'\"])"
