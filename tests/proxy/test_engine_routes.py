"""llama.cpp's own endpoints through the front, and anything else under ``/upstream/``."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llamamgr.core.config import ServerConfig
from llamamgr.supervise.lease import Endpoint, Lease
from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront, serving


async def asked(answer: aiohttp.ClientResponse) -> tuple[int, Any]:
    return answer.status, json.loads(await answer.read())


async def test_an_endpoint_is_asked_of_the_model_in_body_or_query(front: Front) -> None:
    async with front.post("/tokenize", {"model": "tinychat", "content": "hi"}) as answer:
        assert await asked(answer) == (200, {"tokens": [107, 108]})
    async with front.post("/detokenize?model=tinychat", {"tokens": [107, 108]}) as answer:
        assert await asked(answer) == (200, {"content": "hi"})
    async with front.post("/apply-template", {"model": "tinychat", "messages": HI}) as answer:
        assert (await asked(answer))[1]["prompt"].endswith("<|assistant|>")
    for path in ("/props", "/slots", "/lora-adapters"):
        async with front.session.get(path, params={"model": "tinychat"}) as answer:
            assert answer.status == 200, path


async def test_without_a_name_the_only_loaded_model_is_meant(front: Front) -> None:
    async with front.session.get("/slots") as answer:
        status, told = await asked(answer)
        assert (status, "0 models are loaded" in told["error"]["message"]) == (400, True)
    await front.whole("/api/generate", model="tinychat", prompt="hi")
    async with front.session.get("/slots?fail_on_no_slot=1") as answer:
        assert answer.status == 200


async def test_the_engines_own_stream_passes(front: Front) -> None:
    body = {"model": "tinychat", "prompt": "hi", "stream": True}
    async with front.post("/completion", body) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = (await answer.read()).decode().split("\n\n")[:-1]
    assert "".join(json.loads(event[6:])["content"] for event in events) == ANSWER


async def test_refusals_of_the_engine_pass_with_their_status(front: Front) -> None:
    async with front.post("/completion", {"model": "tinychat"}) as answer:
        status, told = await asked(answer)
    assert (status, told["error"]["message"]) == (400, '"prompt" is required')


async def test_an_unknown_model_is_told_in_openais_envelope(front: Front) -> None:
    async with front.post("/tokenize", {"model": "nope", "content": "hi"}) as answer:
        status, told = await asked(answer)
    assert (status, told["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "name", ["tinychat", "tinychat:latest", "registry.ollama.ai/library/tinychat:latest", "tinychat%3Alatest"]
)
async def test_upstream_reaches_any_path_of_a_model_whose_name_may_have_slashes(
    front: Front, name: str
) -> None:
    async with front.session.get(f"/upstream/{name}/v1/models") as answer:
        status, told = await asked(answer)
    assert (status, told["data"][0]["id"]) == (200, "tinychat:latest")


async def test_upstream_unpacks_what_comes_compressed(front: Front) -> None:
    body = gzip.compress(json.dumps({"prompt": "hi"}).encode())
    packed = {"Content-Encoding": "gzip"}
    async with front.session.post("/upstream/tinychat/completion", data=body, headers=packed) as answer:
        status, told = await asked(answer)
    assert (status, told["content"]) == (200, ANSWER)


async def test_upstream_of_nothing_is_404(front: Front) -> None:
    async with front.session.get("/upstream/nope/health") as answer:
        assert (await asked(answer))[0] == 404
    async with front.session.get("/upstream/tinychat/nothing") as answer:
        assert (await asked(answer))[1]["error"]["message"] == "File Not Found"


async def test_upstream_streams_and_a_client_that_leaves_frees_its_lease(front: Front) -> None:
    body = {"prompt": ENDLESS, "stream": True}
    answer = await front.post("/upstream/tinychat/completion", body).__aenter__()
    await answer.content.readany()
    assert front.children.leases == 1
    answer.close()
    async with asyncio.timeout(10):
        while front.children.leases:
            await asyncio.sleep(0.01)


async def test_a_child_that_dies_in_mid_stream_cuts_the_answer(make_front: MakeFront) -> None:
    async with make_front("exit-at=mid-stream") as front:
        received = await front.broken("/completion", model="tinychat", prompt="hi", stream=True)
    assert b"died while answering" in received


class Echo:
    """A stand-in for an engine that tells what reached it."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.app = web.Application(client_max_size=2**30)
        self.app.router.add_route("*", "/{path:.*}", self.answer)
        self.first = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        async for piece in request.content.iter_any():
            self.pieces.append(piece)
            self.first.set()
        told = {"path": request.raw_path, "size": sum(map(len, self.pieces)), "method": request.method}
        return web.json_response(
            told, status=418, headers={"X-Own": "yes", "Set-Cookie": "a=b", "Keep-Alive": "x"}
        )


async def through(front: Front, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let leases of tinychat end at a server on ``port``."""
    inner = front.children.acquire

    def acquire(*args: Any, **more: Any) -> Any:
        return Redirected(inner(*args, **more), port)

    monkeypatch.setattr(front.children, "acquire", acquire)


class Redirected:
    def __init__(self, inner: Any, port: int) -> None:
        self.inner = inner
        self.port = port

    async def __aenter__(self) -> Lease:
        lease = await self.inner.__aenter__()
        endpoint = Endpoint(host="127.0.0.1", port=self.port, api_key="the-childs-own")
        return Lease(lease.child, endpoint, lease.model, lease.build, lease.context)

    async def __aexit__(self, *error: Any) -> Any:
        return await self.inner.__aexit__(*error)


async def test_credentials_cookies_and_connection_headers_stay_behind(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = Echo()
    async with serving(echo.app) as port:
        await through(front, monkeypatch, port)
        headers = {
            "Authorization": "Bearer secret",
            "X-Api-Key": "secret",
            "Cookie": "a=secret",
            "Proxy-Authorization": "secret",
            "X-Conversation-Id": "c1",
            "Te": "trailers",
            "X-Own": "kept",
            "Accept": "text/plain",
        }
        url = "/upstream/tinychat/any/path%20x?a=1&b=%26"
        async with front.session.put(url, data=b"hello", headers=headers) as answer:
            status, told = await asked(answer)
            assert (status, answer.headers["X-Own"]) == (418, "yes")
            assert "Set-Cookie" not in answer.headers
    assert told == {"path": "/any/path%20x?a=1&b=%26", "size": 5, "method": "PUT"}
    assert "secret" not in " ".join(echo.headers.values())
    assert echo.headers["authorization"] == "Bearer the-childs-own"
    assert (echo.headers["x-own"], echo.headers["accept"]) == ("kept", "text/plain")
    assert not {"x-conversation-id", "te", "cookie"} & set(echo.headers)


async def test_a_body_goes_on_as_it_comes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = Echo()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        async with asyncio.timeout(10):
            await echo.first.wait()  # the child has it before the client has sent the rest
        for _ in range(64):
            yield b"x" * 65536

    async with serving(echo.app) as port:
        await through(front, monkeypatch, port)
        async with front.session.post("/upstream/tinychat/upload", data=body()) as answer:
            assert (await asked(answer))[1]["size"] == 5 + 64 * 65536
    assert echo.pieces[0] == b"first"


async def test_a_compressed_body_reaches_an_engine_unpacked(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo, packed = Echo(), gzip.compress(b"x" * 1000)
    async with serving(echo.app) as port:
        await through(front, monkeypatch, port)
        headers = {"Content-Encoding": "gzip"}
        async with front.session.post("/upstream/tinychat/upload", data=packed, headers=headers) as answer:
            assert (await asked(answer))[1]["size"] == 1000
    assert b"".join(echo.pieces) == b"x" * 1000
    assert "content-encoding" not in echo.headers


async def test_a_body_beyond_the_limit_is_refused(make_front: MakeFront) -> None:
    async with (
        make_front(server=ServerConfig(body_limit=1000)) as front,
        front.session.post("/upstream/tinychat/tokenize", data=b"x" * 2000) as answer,
    ):
        assert (await asked(answer))[0] == 413


async def test_the_daemon_tells_of_itself(front: Front) -> None:
    await front.whole("/api/generate", model="tinychat", prompt="hi")
    async with front.session.get("/api/system/status") as answer:
        status, told = await asked(answer)
    assert (status, told["version"], told["models_loaded"]) == (200, "1.2.3", 1)
    [model] = told["models"]
    assert (model["model"], model["state"], model["instance"], model["build"]) == (
        *("tinychat:latest", "ready"),
        *("default", "b11434"),
    )
    assert (model["slots"], model["busy"], model["queued"]) == (4, 0, 0)
    assert {"pid", "memory", "memory_planned", "devices", "tokens_per_second", "expires"} <= model.keys()
    assert front.children.looks == 1
    assert told["uptime_secs"] > 0
