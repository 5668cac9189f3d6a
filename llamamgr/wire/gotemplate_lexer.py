"""Go's ``text/template`` language: text → tokens (source: text/template/parse lex.go)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

import msgspec


class TemplateError(Exception):
    """A template that cannot be parsed or rendered; the text is Go's: ``template: :1: unclosed action``."""


class LexicalError(Exception):
    """A fault of the text itself, at a line; the parser knows what it was reading there."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    line: int


_SPACES = " \t\r\n"
_LEFT = re.compile(r"\{\{(-[ \t\r\n])?")
_COMMENT_END = re.compile(r"\*/(?P<trim>[ \t\r\n]-)?(?P<right>\}\})?")
_RIGHT = re.compile(r"[ \t\r\n]+-\}\}|\}\}")
_INSIDE = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\[^\n])*')
    |(?P<declare>:=)|(?P<assign>=)|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))
    |(?P<variable>\$\w*)
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<word>[^\W\d]\w*)
    |(?P<other>[!-~])""",
    re.VERBOSE,
)
_ENDS = frozenset(_SPACES + ".,|:)(")  # what may follow a name
_UNTERMINATED = {
    '"': "unterminated quoted string",
    "`": "unterminated raw quoted string",
    "'": "unterminated character constant",
    ":": "expected :=",
}


def error_at(line: int, message: str) -> TemplateError:
    return TemplateError(f"template: :{line}: {message}")


def tokens(text: str) -> Iterator[Token]:
    """Text and action tokens; white space inside actions is a token, as it separates operands."""
    at, line, trim = 0, 1, False
    while True:
        left = _LEFT.search(text, at)
        plain = text[at : left.start() if left else len(text)]
        kept = plain.lstrip(_SPACES) if trim else plain
        kept = kept.rstrip(_SPACES) if left and left[1] else kept
        if kept:
            yield Token("text", kept, line)
        line += plain.count("\n")
        if not left:
            yield Token("eof", "", line)
            return
        at = left.end()
        if text.startswith("/*", at):
            end = _comment(text, at, line)
            trim = end["trim"] is not None
        else:
            line += left[0].count("\n")
            yield Token("left", "{{", line)
            at, line, end = yield from _action(text, at, line)
            yield Token("right", "}}", line)
            trim = end[0] != "}}"
        line += text.count("\n", at, end.end())
        at = end.end()


def _comment(text: str, at: int, line: int) -> re.Match[str]:
    end = _COMMENT_END.search(text, at)
    if not end:
        raise LexicalError(line, "unclosed comment")
    if not end["right"]:
        raise LexicalError(line, "comment ends before closing delimiter")
    return end


def _action(text: str, at: int, line: int) -> Generator[Token, None, tuple[int, int, re.Match[str]]]:
    """The tokens of one action; where it stopped, the line there, and the closing delimiter."""
    depth = 0
    while True:
        right = _RIGHT.match(text, at)
        if right:
            if depth:
                raise LexicalError(line, "unclosed left paren")
            return at, line, right
        token = _inside(text, at, line)
        depth += (token.kind == "open") - (token.kind == "close")
        if depth < 0:
            raise LexicalError(line, "unexpected right paren")
        yield token
        line += token.text.count("\n")
        at += len(token.text)


def _inside(text: str, at: int, line: int) -> Token:
    if at >= len(text):
        raise LexicalError(line, "unclosed action")
    found = _INSIDE.match(text, at)
    character = text[at]
    if not found or (found.lastgroup == "other" and character in _UNTERMINATED):
        raise LexicalError(
            line, _UNTERMINATED.get(character) or f"unrecognized character in action: {_code(character)}"
        )
    kind, following = str(found.lastgroup), text[found.end() : found.end() + 1]
    if kind == "number" and (following.isalnum() or following == "_"):
        raise LexicalError(line, f'bad number syntax: "{found[0]}{following}"')
    is_name = kind in ("word", "variable", "field")
    if is_name and following and following not in _ENDS and not text.startswith("}}", found.end()):
        raise LexicalError(line, f"bad character {_code(following)}")
    return Token(kind, found[0], line)


def _code(character: str) -> str:
    return f"U+{ord(character):04X}" + (f" '{character}'" if character.isprintable() else "")
