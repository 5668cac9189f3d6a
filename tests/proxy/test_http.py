"""HTTP/1.1 to the letter: what is said on a bare connection, and what must come back."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from llamamgr.core.config import ServerConfig
from llamamgr.wire.ollama import API_VERSION
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront
from tests.proxy.raw import Answer, until, wire

GENERATE = json.dumps({"model": "tinychat", "prompt": "hi", "stream": False}).encode()
CHAT = json.dumps({"model": "tinychat", "messages": HI}).encode()


def chunked(body: bytes, size: int = 7) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def in_flight(front: Front, path: str) -> int:
    route = front.services.metrics.routes.get(path)
    return route.in_flight if route else 0


def check_refusal(answer: Answer, status: int) -> None:
    """What every answer has that no handler gave."""
    assert answer.status == status
    assert answer.headers["server"] == "llamamgr"
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"].startswith("application/json")


BAD = {
    "no method": b"\x00\x01\x02\r\n\r\n",
    "unknown method": b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    "a foreign version": b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a header name with a space": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "chunks of no size": b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request_is_400_and_the_end(front: Front, name: str) -> None:
    async with wire(front.port) as client:
        client.send(BAD[name])
        answer = await client.answer()
        check_refusal(answer, 400)
        assert set(answer.json) == {"error"}
        assert await client.rest() == b""
    assert front.services.metrics.dropped == {"protocol": 1}


async def test_a_tls_client_is_told_that_this_is_not_tls(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(BAD["TLS"])
        assert "http://" in (await client.answer()).json["error"]


async def test_nothing_of_a_bad_request_is_repeated(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer s3cret\r\n\r\n")
        assert b"s3cret" not in (await client.answer()).body


LONG = {
    "a long header": [b"A: " + b"x" * 20_000],
    "a long name": [b"x" * 20_000 + b": a"],
    "many headers": [b"A%d: b" % number for number in range(200)],
    "a large head": [b"A%d: %s" % (number, b"x" * 12_000) for number in range(8)],
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_head_that_is_too_long_is_431_in_the_dialect_of_its_path(
    front: Front, path: str, name: str
) -> None:
    async with wire(front.port) as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n")
        for line in LONG[name]:
            client.send(line + b"\r\n")
            await client.writer.drain()
            await asyncio.sleep(0)
        client.send(b"\r\n")
        answer = await client.answer()
    check_refusal(answer, 431)
    error = answer.json["error"]
    match path:
        case "/api/chat":
            assert isinstance(error, str)
        case "/v1/chat/completions":
            assert error["type"] == "invalid_request_error"
        case "/v1/messages":
            assert answer.json["type"] == "error"


async def test_a_target_that_is_too_long_is_431(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("GET /api/" + "x" * 20_000)
        check_refusal(await client.answer(), 431)


async def test_a_client_that_goes_on_sending_gets_to_read_why_it_is_refused(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
        for _ in range(50):
            client.send(b"x" * 20_000)
        check_refusal(await client.answer(), 431)


async def test_head_limits_are_settings(make_front: MakeFront) -> None:
    async with make_front(server=ServerConfig(header_limit=2000)) as front, wire(front.port) as client:
        client.ask("GET /", "A: " + "x" * 1900)
        assert (await client.answer()).status == 200
        client.ask("GET /", "A: " + "x" * 2100)
        check_refusal(await client.answer(), 431)


# -- connections that go on


async def test_a_connection_lives_on_after_every_kind_of_refusal(front: Front) -> None:
    refused = [
        ("GET /no/page", b"", 404),
        ("POST /api/tags", b"", 405),
        ("POST /api/chat", b"{", 400),
        ("POST /api/show", b'{"model":"nope"}', 404),
        ("GET /v1/models/nope", b"", 404),
        ("PUT /api/chat", b"", 405),
        ("OPTIONS /api/chat", b"", 204),
    ]
    async with wire(front.port) as client:
        for line, body, status in refused:
            client.ask(line, body=body)
            assert (await client.answer()).status == status, line
        client.ask("GET /")
        assert (await client.answer()).body == b"Ollama is running"


async def test_requests_sent_at_once_are_answered_in_order(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("POST /api/generate", body=GENERATE)
        client.ask("GET /api/version")
        client.ask("HEAD /")
        client.ask("GET /no/page")
        assert (await client.answer()).json["response"] == ANSWER
        assert (await client.answer()).json == {"version": API_VERSION}
        assert (await client.answer(bodiless=True)).headers["content-length"] == "17"
        assert (await client.answer()).status == 404


async def test_a_bad_request_behind_a_good_one_leaves_it_its_answer(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("POST /api/generate", body=GENERATE)
        await until(lambda: bool(front.children.granted))
        client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).json["response"] == ANSWER
        check_refusal(await client.answer(), 400)
        assert await client.rest() == b""


async def test_close_is_done_and_said(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("GET /", "Connection: close")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_an_http_1_0_client_is_served_without_host_chunks_or_keep_alive(front: Front) -> None:
    body = json.dumps({"model": "tinychat", "prompt": "hi"}).encode()
    async with wire(front.port) as client:
        client.send(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await client.answer()
        assert "transfer-encoding" not in answer.headers
        lines = [json.loads(line) for line in answer.body.splitlines()]
    assert "".join(line["response"] for line in lines) == ANSWER
    assert lines[-1]["done"] is True


async def test_an_http_1_0_client_cannot_take_a_broken_stream_for_a_whole_one(make_front: MakeFront) -> None:
    body = json.dumps({"model": "tinychat", "prompt": "hi"}).encode()
    async with make_front("exit-at=mid-stream") as front, wire(front.port) as client:
        client.send(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        received = b""
        with pytest.raises(ConnectionResetError):
            while data := await client.reader.read(65536):
                received += data
    assert "died while answering" in json.loads(received.splitlines()[-1])["error"]


async def test_an_http_1_0_client_may_ask_to_keep_its_connection(front: Front) -> None:
    async with wire(front.port) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"].lower()) == (200, "keep-alive")


async def test_head_has_the_headers_of_get_and_no_body(front: Front) -> None:
    async with wire(front.port) as client:
        for path in ("/", "/api/version", "/api/tags"):
            client.ask(f"GET {path}")
            whole = await client.answer()
            client.ask(f"HEAD {path}")
            bare = await client.answer(bodiless=True)
            assert bare.status == 200
            for name in ("content-type", "content-length"):
                assert bare.headers[name] == whole.headers[name]


async def test_an_absolute_target_is_understood(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(b"GET http://localhost/api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("line", "status", "location"),
    [
        ("GET /api/tags/", 301, "/api/tags"),
        ("GET /api/tags/?x=1&y=%2F", 301, "/api/tags?x=1&y=%2F"),
        ("HEAD /api/tags/", 307, "/api/tags"),
        ("POST /api/chat/", 307, "/api/chat"),
        ("GET /v1/models/", 301, "/v1/models"),
        ("POST /api/tags/", 404, None),
        ("GET /nope/", 404, None),
        ("GET //evil.example/", 307, "/evil.example/"),
        ("GET //api//tags?x=1", 307, "/api/tags?x=1"),
        ("GET /api/./../api/version", 307, "/api/version"),
        ("POST //api/chat", 307, "/api/chat"),
        ("GET /x/../\\evil.example", 307, "/%5Cevil.example"),
    ],
)
async def test_a_slash_too_many_is_told_where_to_go_as_by_ollama(
    front: Front, line: str, status: int, location: str | None
) -> None:
    async with wire(front.port) as client:
        client.ask(line)
        answer = await client.answer(bodiless=line.startswith("HEAD"))
        assert (answer.status, answer.headers.get("location")) == (status, location)


async def test_connect_is_no_method_here(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer()).status in (404, 405)


async def test_an_upgrade_is_not_made_and_the_request_answered(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("GET /", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        assert (await client.answer()).status == 200
        client.ask("GET /")
        assert (await client.answer()).status == 200


# -- options


async def test_options_without_an_origin_tells_what_is_allowed_as_ollama_does(front: Front) -> None:
    allowed = {
        "/api/chat": "POST",
        "/api/tags": "HEAD, GET",
        "/": "HEAD, GET",
        "/v1/responses/x": "GET, DELETE",
    }
    async with wire(front.port) as client:
        for path, methods in allowed.items():
            client.send(f"OPTIONS {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["allow"]) == (405, methods)
            client.ask(f"OPTIONS {path}")
            answer = await client.answer()
            assert (answer.status, answer.headers["allow"]) == (204, methods), "asked by a name"
            assert "access-control-allow-origin" not in answer.headers
            client.send(f"OPTIONS {path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nOrigin: http://127.0.0.1:1\r\n\r\n")
            answer = await client.answer()
            assert answer.status == 405 and "access-control-allow-origin" not in answer.headers, (
                "it is itself"
            )
            client.ask(f"OPTIONS {path}", "Origin: http://localhost:3000")
            answer = await client.answer()
            assert (answer.status, answer.headers["allow"]) == (204, methods)


# -- bodies


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_chunked_body_is_put_together(front: Front, size: int) -> None:
    async with wire(front.port) as client:
        client.send("POST /api/generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(chunked(GENERATE, size))
        assert (await client.answer()).json["response"] == ANSWER
        client.ask("GET /")
        assert (await client.answer()).status == 200


async def test_a_body_whose_chunks_go_wrong_midway_is_400_and_ends_what_it_was_for(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.send(b"5\r\nhello\r\n")
        await until(lambda: in_flight(front, "/v1/chat/completions") == 1)
        client.send(b"zz\r\n")
        answer = await client.answer()
        check_refusal(answer, 400)
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert await client.rest() == b""
    await until(lambda: in_flight(front, "/v1/chat/completions") == 0)


async def test_a_client_that_awaits_100_continue_gets_it(front: Front) -> None:
    async with wire(front.port) as client:
        client.send(
            f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(GENERATE)}\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await client.answer()).status == 100
        client.send(GENERATE)
        assert (await client.answer()).json["response"] == ANSWER


async def test_an_expectation_that_cannot_be_met_is_417(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("POST /v1/chat/completions", "Expect: the-moon", body=CHAT)
        answer = await client.answer()
    assert (answer.status, answer.headers["server"]) == (417, "llamamgr")


async def test_a_compressed_body_is_read(front: Front) -> None:
    packed = gzip.compress(GENERATE), zlib.compress(GENERATE), zstd.compress(GENERATE)
    async with wire(front.port) as client:
        for coding, body in zip(("gzip", "deflate", "zstd"), packed, strict=True):
            client.ask("POST /api/generate", f"Content-Encoding: {coding}", body=body)
            assert (await client.answer()).json["response"] == ANSWER


async def test_the_limit_of_a_body_is_that_of_what_it_unpacks_to(make_front: MakeFront) -> None:
    spaces = b" " * 5_000_000
    bombs = {"gzip": gzip.compress(spaces), "zstd": zstd.compress(spaces)}
    async with make_front(server=ServerConfig(body_limit=100_000)) as front, wire(front.port) as client:
        for coding, bomb in bombs.items():
            assert len(bomb) < 10_000
            for path in ("/api/generate", "/v1/chat/completions", "/upstream/tinychat/tokenize"):
                client.ask(f"POST {path}", f"Content-Encoding: {coding}", body=bomb)
                assert (await client.answer()).status == 413, path


async def test_a_body_that_cannot_be_unpacked_is_400(front: Front) -> None:
    async with wire(front.port) as client:
        client.ask("POST /api/generate", "Content-Encoding: gzip", body=b"no gzip at all")
        answer = await client.answer()
        assert (answer.status, set(answer.json)) == (400, {"error"})


async def test_a_body_over_the_limit_is_413_and_its_rest_is_not_taken_for_a_request(
    make_front: MakeFront,
) -> None:
    async with make_front(server=ServerConfig(body_limit=2000)) as front, wire(front.port) as client:
        client.ask("POST /api/generate", body=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        client.ask("GET /api/version")
        assert (await client.answer()).status == 413
        assert (await client.answer()).json == {"version": API_VERSION}


async def test_every_answer_has_a_request_id_and_our_name(front: Front) -> None:
    async with wire(front.port) as client:
        for line in ("GET /", "GET /nope", "POST /api/chat", "DELETE /", "OPTIONS /api/chat", "GET /metrics"):
            client.ask(line)
            answer = await client.answer()
            assert answer.headers["server"] == "llamamgr", line
            assert answer.headers["x-request-id"], line
