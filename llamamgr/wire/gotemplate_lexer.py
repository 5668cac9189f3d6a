"""Go's ``text/template`` language: text → tokens (facts: text/template/parse lex.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec


class TemplateError(Exception):
    """A template that cannot be parsed or rendered; the text is Go's: ``template: :1: unclosed action``."""


class Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    line: int


_LEFT = re.compile(r"\{\{(-(?=\s))?")
_COMMENT = re.compile(r"\s*/\*.*?\*/(\s+-)?\}\}", re.DOTALL)
_COMMENT_START = re.compile(r"\s*/\*")
_RIGHT = re.compile(r"\s+-\}\}|\}\}")
_INSIDE = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.)+')
    |(?P<declare>:=)|(?P<assign>=)|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))|(?P<comma>,)
    |(?P<variable>\$\w*)
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<word>[^\W\d]\w*)""",
    re.VERBOSE,
)


def error_at(line: int, message: str) -> TemplateError:
    return TemplateError(f"template: :{line}: {message}")


def tokens(text: str) -> Iterator[Token]:
    """Text and action tokens; white space inside actions is a token, as it separates operands."""
    at, line, trim = 0, 1, False
    while True:
        left = _LEFT.search(text, at)
        plain = text[at : left.start() if left else len(text)]
        kept = plain.lstrip() if trim else plain
        kept = kept.rstrip() if left and left[1] else kept
        if kept:
            yield Token("text", kept, line)
        line += plain.count("\n")
        if not left:
            yield Token("eof", "", line)
            return
        at = left.end()
        if _COMMENT_START.match(text, at):
            comment = _COMMENT.match(text, at)
            if not comment:
                raise error_at(line, "unclosed comment")
            line += comment[0].count("\n")
            at, trim = comment.end(), comment[1] is not None
            continue
        yield Token("left", "{{", line)
        while not (right := _RIGHT.match(text, at)):
            token = _inside(text, at, line)
            yield token
            line += token.text.count("\n")
            at += len(token.text)
        yield Token("right", "}}", line)
        line += right[0].count("\n")
        at, trim = right.end(), right[0] != "}}"


def _inside(text: str, at: int, line: int) -> Token:
    if at >= len(text):
        raise error_at(line, "unclosed action")
    found = _INSIDE.match(text, at)
    if found and found.lastgroup:
        return Token(found.lastgroup, found[0], line)
    faults = {'"': "unterminated quoted string", "`": "unterminated raw quoted string"}
    faults |= {"'": "unterminated character constant", ":": "expected :="}
    character = text[at]
    code = f"U+{ord(character):04X}" + (f" '{character}'" if character.isprintable() else "")
    raise error_at(line, faults.get(character) or f"unexpected {_bad(character, code)}")


def _bad(character: str, code: str) -> str:
    return f'"{character}" in operand' if character in "{}" else f"bad character {code}"
