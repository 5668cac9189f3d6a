"""Transcripts: the form that the engine gets, and what becomes of its events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from llamamgr.wire import multipart, transcription
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import Usage
from llamamgr.wire.transcription import Transcript
from tests.wire.streams import CUTS, SPOILS, pieces, spoiled

TYPE = "multipart/form-data; boundary=xx"
DONE = {
    "type": "transcript.text.done",
    "text": " a llama hums",
    "usage": {
        "type": "tokens",
        "input_tokens": 9,
        "output_tokens": 4,
        "total_tokens": 13,
        "input_tokens_details": {"cached_tokens": 2},
    },
}


def form(**fields: str) -> bytes:
    parts = {"model": "tiny", **fields}
    told = "".join(
        f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts.items()
    )
    file = '--xx\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--xx--\r\n'
    return (told + file).encode()


def events(*deltas: str) -> bytes:
    told = [{"type": "transcript.text.delta", "delta": delta} for delta in deltas]
    return (
        b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in [*told, DONE])
        + b"data: [DONE]\n\n"
    )


def test_the_engine_is_always_asked_for_a_stream_of_json() -> None:
    asked = transcription.parse(TYPE, form(response_format="text", language="en", temperature="0.5"))
    sent = multipart.parse(TYPE, asked.form)
    assert [sent.field(name) for name in ("response_format", "stream", "language", "temperature")] == [
        "json",
        "true",
        "en",
        "0.5",
    ]
    assert (asked.model, asked.as_text, asked.stream) == ("tiny", True, False)
    assert transcription.parse(TYPE, form(stream="True")).stream


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"response_format": "srt"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": "1.5"}, "max_tokens"),
        ({"stream": "maybe"}, "stream"),
    ],
)
def test_what_cannot_be_asked_is_told_by_its_field(fields: dict[str, str], param: str) -> None:
    with pytest.raises(DialectError) as refused:
        transcription.parse(TYPE, form(**fields))
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_form_without_a_recording_is_refused() -> None:
    with pytest.raises(DialectError, match="file is required"):
        transcription.parse(
            TYPE,
            form()[: form().index(b'--xx\r\nContent-Disposition: form-data; name="file"')] + b"--xx--\r\n",
        )


def heard(chunks: list[bytes]) -> tuple[Transcript, str]:
    transcript = Transcript()
    told = "".join([transcript.feed(chunk) for chunk in chunks])
    transcript.eof()
    return transcript, told


@given(CUTS)
def test_a_transcript_is_the_same_however_it_comes_and_has_no_space_around_it(cuts: list[float]) -> None:
    transcript, told = heard(pieces(events(" ", " a", " llama", "", " ", "hums", " ", "\n"), cuts))
    assert told == transcript.text == "a llama hums"
    assert transcript.usage == Usage(9, 2, 4)
    assert transcript.failed is None
    told_whole = json.loads(transcription.answer(transcript))
    assert (told_whole["text"], told_whole["usage"]["total_tokens"]) == ("a llama hums", 13)
    last = transcription.last_event(transcript)
    assert json.loads(last.split(b"\n\n")[0].removeprefix(b"data: "))["text"] == "a llama hums"
    assert last.endswith(b"data: [DONE]\n\n")


@given(SPOILS, CUTS)
def test_a_broken_stream_is_a_failure_and_nothing_worse(
    spoils: list[tuple[float, bytes, int]], cuts: list[float]
) -> None:
    transcript, told = heard(pieces(spoiled(events(" a", " llama"), spoils), cuts))
    assert transcript.ended or transcript.failed
    assert told == transcript.text


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b'data: {"error":{"code":400,"message":"no","type":"invalid_request_error"}}\n\n', 400, "no"),
        (b'error: {"code":500,"message":"dead","type":"server_error"}\n\n', 500, "dead"),
        (b"", 502, "ended before it was complete"),
        (b"data: {\n\n", 502, "cannot be read"),
    ],
)
def test_a_failure_of_the_engine_is_told(data: bytes, status: int, message: str) -> None:
    transcript, _ = heard([data])
    assert transcript.failed is not None
    assert transcript.failed.status == status
    assert message in transcript.failed.message
