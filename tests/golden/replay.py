"""Recorded Ollama exchanges and the one way to compare an answer with its record.

``VOLATILE`` is the only list of fields whose value may differ; ``DEVIATIONS`` the only list of answers that
differ on purpose, each with its reason. A stream may cut its text elsewhere: ``merged`` joins it beforehand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent
MODELS = FOLDER / "models"
RECORD = FOLDER / "ollama.jsonl"

# Times, measured durations, identifiers, and what depends on the file store.
VOLATILE = frozenset(
    {
        *("created_at", "modified_at", "expires_at", "completed_at", "created"),
        *("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"),
        *("digest", "id", "request_id", "call_id", "item_id", "response_id", "system_fingerprint", "version"),
        *("size", "size_vram", "modelfile", "template", "license"),
    }
)

# Name of an exchange → why our answer differs from Ollama's, wanted so.
_OWN_MODEL = "the embedded selftest is listed too, and capabilities are those that /api/show tells"
_CLIENTS_FAULT = "a client's mistake is 400 here, with the same text; Ollama answers 500"
_UNWRAPPED = "the engine's JSON is unwrapped to its plain message; the status is the same"
_ENVELOPE = "param and code are told, as OpenAI does; message, type and status are the same"
_AS_OPENAI = "answers are kept for previous_response_id, so store is true; temperature and top_p are the engine's own, so null"
_AS_ANTHROPIC = (
    "stop_sequence and the usage of a cache are told, and a stream has its ping, as Anthropic does"
)
DEVIATIONS: dict[str, str] = {
    "tags": _OWN_MODEL,
    "good-origin": _OWN_MODEL,
    "show-embed": "no parameters are guessed from a chat template that resembles a known one",
    "generate-bad-template": _CLIENTS_FAULT,
    "generate-format-xml": _CLIENTS_FAULT,
    "generate-format-number": _CLIENTS_FAULT,
    "generate-stop-string": _CLIENTS_FAULT,
    "generate-temp-string": _CLIENTS_FAULT,
    "chat-format-xml": _CLIENTS_FAULT,
    "create-unknown-from": "the reason is the registry's own, here that it has no such model; Ollama's had no network",
    "generate-image-text-model": _UNWRAPPED,
    "generate-too-long-notrunc": _UNWRAPPED,
    "v1-chat-logprobs": "the engine's own answer is passed on: token ids, and a row for the end token",
    **dict.fromkeys(("v1-chat-unknown", "v1-chat-no-model", "v1-chat-no-messages"), _ENVELOPE),
    **dict.fromkeys(("v1-chat-image-url", "v1-chat-effort-bad", "v1-embeddings-missing"), _ENVELOPE),
    "v1-completions": "the prompt is raw, so that it has fewer tokens",
    "v1-completions-array": "several prompts are served",
    "v1-embeddings-base64": "the engine's own bits: Ollama normalises once more, which may change the last one",
    **dict.fromkeys(("v1-responses", "v1-responses-stream", "v1-responses-items"), _AS_OPENAI),
    **dict.fromkeys(("messages-stream", "messages-system", "messages-blocks", "messages-max"), _AS_ANTHROPIC),
    "messages-stop": "the stop sequence that was met is told, as Anthropic does",
}

# What the engine tells besides and a passage keeps; no record has it.
ADDED = frozenset({"timings", "prompt_tokens_details"})

_HEX = re.compile(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{12,64}\b")


class Exchange(msgspec.Struct, frozen=True):
    """One request and the answer that Ollama gave. Header names are lower-case in ``answer_headers``."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    status: int
    answer_headers: dict[str, str]
    answer: str

    @property
    def content_type(self) -> str:
        """Media type of the answer without parameters."""
        return _media_type(self.answer_headers.get("content-type", ""))

    @property
    def json(self) -> Any:
        """The request's JSON body."""
        return json.loads(self.body or b"null")


def load(names: Iterable[str] | None = None) -> list[Exchange]:
    """All exchanges in recorded order, or those of ``names`` (``KeyError`` for an unknown one)."""
    found = {row["name"]: _exchange(row) for row in map(json.loads, RECORD.read_text("utf-8").splitlines())}
    return list(found.values()) if names is None else [found[name] for name in names]


def _exchange(row: dict[str, Any]) -> Exchange:
    request, answer = row["request"], row["response"]
    body = request["raw"].encode("latin-1") if "raw" in request else None
    if "json" in request:
        body = json.dumps(request["json"]).encode()
    headers = ({} if body is None else {"Content-Type": "application/json"}) | request["headers"]
    return Exchange(
        row["name"],
        request["method"],
        request["path"],
        headers,
        body,
        answer["status"],
        answer["headers"],
        answer["body"],
    )


def normalise(value: Any) -> Any:
    """``value`` without ``ADDED``, with volatile fields as ``"*"``, floats to three digits and hashes as ``HEX``."""
    if isinstance(value, dict):
        return {
            key: "*" if key in VOLATILE and inner is not None else normalise(inner)
            for key, inner in sorted(value.items())
            if key not in ADDED
        }
    if isinstance(value, list | tuple):
        return [normalise(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 3)
    return _HEX.sub("HEX", value) if isinstance(value, str) else value


def read_body(text: str, content_type: str) -> Any:
    """A body as comparable data: a list of events for a stream, a value for JSON, else the text."""
    kind = _media_type(content_type)
    if kind == "text/event-stream":
        return [_event_line(line) for line in text.splitlines() if line.startswith(("data: ", "event: "))]
    if kind == "application/x-ndjson":
        return [normalise(json.loads(line)) for line in text.splitlines() if line.strip()]
    if kind == "application/json" and text:
        return normalise(json.loads(text))
    return text


def merged(body: Any) -> Any:
    """A stream with its text joined: its text, last object and kinds of events; other bodies as they are."""
    if not isinstance(body, list):
        return body
    objects = [event for event in body if isinstance(event, dict)]
    return {
        "text": "".join(map(_text_of, objects)),
        "last": objects[-1:],
        "kinds": sorted({event.get("type", "") for event in objects}),
        "end": body[-1] if body and isinstance(body[-1], str) else "",
    }


def difference(exchange: Exchange, status: int, content_type: str, text: str) -> str:
    """What an answer has that the record has not, as one text for an assertion; empty when they agree."""
    faults = []
    if status != exchange.status:
        faults.append(f"status {status}, recorded {exchange.status}")
    if _media_type(content_type) != exchange.content_type:
        faults.append(f"content type {content_type!r}, recorded {exchange.content_type!r}")
    ours, recorded = read_body(text, content_type), read_body(exchange.answer, exchange.content_type)
    if ours != recorded and merged(ours) != merged(recorded):
        faults.append(f"body\n  ours     {json.dumps(ours)}\n  recorded {json.dumps(recorded)}")
    return f"{exchange.name}: {'; '.join(faults)}" if faults else ""


def _media_type(header: str) -> str:
    return header.lower().partition(";")[0].strip()


def _event_line(line: str) -> Any:
    name, _, data = line.partition(": ")
    return normalise(json.loads(data)) if name == "data" and data != "[DONE]" else line


def _text_of(event: dict[str, Any]) -> str:
    choice = (event.get("choices") or [{}])[0]
    said = (
        event.get("response"),
        (event.get("message") or {}).get("content") if isinstance(event.get("message"), dict) else None,
        (choice.get("delta") or {}).get("content"),
        choice.get("text"),
        event.get("delta") if isinstance(event.get("delta"), str) else None,
        (event.get("delta") or {}).get("text") if isinstance(event.get("delta"), dict) else None,
    )
    return next((text for text in said if isinstance(text, str)), "")
