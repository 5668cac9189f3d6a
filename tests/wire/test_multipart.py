"""Forms as clients of transcription endpoints send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import multipart
from llamamgr.wire.errors import DialectError

TYPE = 'multipart/form-data; boundary="xx"'
BODY = (
    b'--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    b'--xx\r\ncontent-disposition: form-data; name="response_format"\r\n\r\ntext\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF\r\n--x\r\n\r\n\x00\xff\r\n"
    b"--xx--\r\n"
)


def test_fields_are_read_and_files_are_none() -> None:
    form = multipart.parse(TYPE, BODY)
    assert (form.field("model"), form.field("response_format"), form.field("file")) == ("tiny", "text", "")
    assert form.has_file("file")
    assert form.parts[2].value == b"RIFF\r\n--x\r\n\r\n\x00\xff"


def test_a_field_can_be_replaced_and_all_else_stays() -> None:
    form = multipart.parse("multipart/form-data; boundary=xx", BODY)
    assert form.with_fields({}) == BODY
    start = BODY.index(b"--xx", 1)
    end = BODY.index(b"--xx", start + 1)
    changed = form.with_fields({"response_format": "json", "stream": "true"})
    assert changed.startswith(BODY[:start] + BODY[end : -len(b"--xx--\r\n")])
    again = multipart.parse(TYPE, changed)
    assert (again.field("response_format"), again.field("stream")) == ("json", "true")
    assert [part.name for part in again.parts] == ["model", "file", "response_format", "stream"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", BODY),
        ("multipart/form-data", BODY),
        (TYPE, b""),
        (TYPE, BODY[:-6]),
        (TYPE, b"--xx--\r\n"),
        (TYPE, b"--xx\r\n\r\n\r\nx\r\n--xx--\r\n"),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(DialectError):
        multipart.parse(content_type, body)


@given(st.binary(max_size=60), st.floats(0, 1))
def test_mutated_forms_are_read_or_refused(data: bytes, at: float) -> None:
    place = round(at * len(BODY))
    try:
        form = multipart.parse(TYPE, BODY[:place] + data + BODY[place + len(data) :])
    except DialectError:
        return
    assert multipart.parse(TYPE, form.with_fields({})).parts == form.parts
