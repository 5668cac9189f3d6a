"""llama-server's errors → one plain sentence, and what is said of an answer that is not whole or makes no sense.

Shapes and wording are those of llama.cpp b11434, read and recorded.
"""

from __future__ import annotations

import re

import msgspec

from llamamgr.wire.neutral import Failed

# what decoding can raise: malformed or ill-typed JSON, broken UTF-8, nesting beyond the stack
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

REFUSED_BY_TEMPLATE = "the model's chat template refuses this conversation"
INCOMPLETE = Failed(502, "the engine's answer ended before it was complete", "protocol_error")

# what llama-server answers 500 to before it generates anything, though the client can mend it: its std::runtime_error of
# common/chat.cpp, tools/server/server-common.cpp and of templates, and what its JSON library says of wrong types
_OF_THE_CLIENT = re.compile(
    r"\[json\.exception\.|Failed to (parse (messages|tools|tool call arguments)|tokenize prompt|load image or audio file)"
    r"|Cannot (specify|use) (both )?\w+ (and|with) |Unknown (reasoning|chat) format|Unsupported param|Only no echo|Invalid base64"
    r"|Multimodal data provided|(image|audio|video) input is not supported|\"prompt\" is required|'messages' is required"
    r"|for mtmd, input prompt"
)
# by a template's own raise_exception, after a piece of its source
_RAISED = re.compile(r"Jinja Exception: (.*)", re.DOTALL)
_DUMP = re.compile(r"; (?:messages|tools) = .*", re.DOTALL)  # the request's own, whole: nothing for a log
# what it says of one field: that its JSON library expected another type, or the range it must be in
_FIELD = re.compile(
    r"Field '(\w+)': (?:\[json\.exception[^]]*\] type must be (\w+), but is (\w+)|(.*))", re.DOTALL
)
# how a sentence begins, or what is in it → the field that it is about
_FIELDS = (
    (re.compile(r"Failed to parse tools|Unsupported tool type|Missing tool type"), "tools"),
    (re.compile(r"top_logprobs\b"), "top_logprobs"),
    (re.compile(r"logprobs\b"), "logprobs"),
    (re.compile(r"response_format\b"), "response_format"),
    (
        re.compile(
            r"Failed to parse (?:messages|tool call arguments)|unsupported content|All non-assistant|Multimodal data"
            r"|Cannot continue an assistant|Invalid base64|Failed to load image"
        ),
        "messages",
    ),
)
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "exceed_context_size_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "not_supported_error": 501,
    "unavailable_error": 503,
}


class ErrorBody(msgspec.Struct):
    """An error as llama-server tells it; ``code`` is an HTTP status, or some other word."""

    message: str = ""
    type: str = "server_error"
    code: int | str | None = None


class _ErrorAnswer(msgspec.Struct):
    error: ErrorBody


def error_of(status: int, body: bytes) -> Failed:
    """A refusal as one plain sentence: llama-server's JSON unwrapped, anything else quoted (≤ 500
    characters).
    """
    try:
        error = msgspec.json.decode(body, type=_ErrorAnswer).error
    except UNREADABLE:
        text = " ".join(body[:2000].decode("utf-8", "replace").split())[:500]
        return Failed(status, text or f"the engine answered {status} without a word")
    mistake = _raised(error.message) if status in (400, 500) else ""
    if status == 500 and not mistake:
        mistake = _mistake_of_client(error.message)
    if mistake:
        return Failed(400, mistake[:500], "invalid_request_error", _field_in(mistake))
    if status == 400 and (field := _FIELD.match(error.message)):
        return _of_field(field)
    param = _field_in(error.message) if status == 400 else None
    return Failed(status, error.message or f"the engine answered {status}", error.type, param)


def failure_of(data: bytes) -> Failed:
    """An ``error:`` line: its JSON is the error itself or wraps it."""
    try:
        return reported(msgspec.json.decode(data, type=_ErrorAnswer).error)
    except UNREADABLE:
        pass
    try:
        return reported(msgspec.json.decode(data, type=ErrorBody))
    except UNREADABLE:
        return error_of(500, data)


def reported(error: ErrorBody) -> Failed:
    """An error that the engine tells of in the midst of a stream; its status is the engine's own, or that of its kind."""
    known = _STATUS_OF_TYPE.get(error.type, 500)
    status = error.code if isinstance(error.code, int) and 400 <= error.code <= 599 else known
    return Failed(status, error.message or "the engine reported an error without a word", error.type)


def unreadable(what: object) -> Failed:
    """For bytes that break the engine's own rules."""
    return Failed(502, f"the engine sent what cannot be read: {what}", "protocol_error")


def _of_field(said: re.Match[str]) -> Failed:
    name, wanted, got, else_ = said.groups()
    if wanted:
        message = f"Invalid type for '{name}': expected a {wanted}, but got {_ARTICLES.get(got, 'a')} {got} instead."
        return Failed(400, message, "invalid_request_error", name, "invalid_type")
    return Failed(400, f"Invalid value for '{name}': {else_}", "invalid_request_error", name, "invalid_value")


_ARTICLES = {"array": "an", "object": "an"}


def _field_in(message: str) -> str | None:
    """The field that a sentence is about, by its words."""
    return next((field for words, field in _FIELDS if words.match(message)), None)


def _raised(message: str) -> str:
    """What a template says of a conversation that it does not take; empty when it is not that."""
    raised = _RAISED.search(message)
    return f"{REFUSED_BY_TEMPLATE}: {raised[1].strip()}" if raised else ""


def _mistake_of_client(message: str) -> str:
    """What there is to tell of it; empty when the engine is at fault."""
    return _DUMP.sub("", message) if _OF_THE_CLIENT.match(message) else ""
