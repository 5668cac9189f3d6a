"""API keys at the front: who gets in, what for, how often, and what becomes of a key behind it."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from llamamgr.core.config import ModelConfig, ServerConfig
from llamamgr.core.keys import ENDPOINTS, FOR_ANY_KEY, Key, hash_of
from llamamgr.proxy.app import build_app
from llamamgr.proxy.keyring import Keyring
from llamamgr.wire import http1
from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import HI, Front, MakeFront
from tests.proxy.raw import wire

SECRET = "lmk-the-secret-of-ann"
NEEDED = ServerConfig(require_key=True)
ANN = Key(hash_of(SECRET), "ann")
CHAT = {"model": "tinychat", "messages": HI}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
)

# Every route of the front, and a request to it that is about MODEL; those below are about none.
ABOUT_A_MODEL: dict[tuple[str, str], tuple[str, Any]] = {
    ("POST", "/api/generate"): ("/api/generate", {"model": "MODEL", "prompt": "hi"}),
    ("POST", "/api/chat"): ("/api/chat", {"model": "MODEL", "messages": HI}),
    ("POST", "/api/show"): ("/api/show", {"model": "MODEL"}),
    ("POST", "/api/embed"): ("/api/embed", {"model": "MODEL", "input": "hi"}),
    ("POST", "/api/embeddings"): ("/api/embeddings", {"model": "MODEL", "prompt": "hi"}),
    ("POST", "/api/create"): ("/api/create", {"model": "MODEL", "from": "tinychat"}),
    ("POST", "/api/copy"): ("/api/copy", {"source": "tinychat", "destination": "MODEL"}),
    ("DELETE", "/api/delete"): ("/api/delete", {"model": "MODEL"}),
    ("POST", "/api/pull"): ("/api/pull", {"model": "MODEL"}),
    ("POST", "/api/push"): ("/api/push", {"model": "MODEL"}),
    ("GET", "/v1/models/{name}"): ("/v1/models/MODEL", None),
    ("POST", "/v1/chat/completions"): ("/v1/chat/completions", {"model": "MODEL", "messages": HI}),
    ("POST", "/v1/completions"): ("/v1/completions", {"model": "MODEL", "prompt": "hi"}),
    ("POST", "/v1/embeddings"): ("/v1/embeddings", {"model": "MODEL", "input": "hi"}),
    ("POST", "/v1/responses"): ("/v1/responses", {"model": "MODEL", "input": "hi"}),
    ("POST", "/v1/responses/input_tokens"): ("/v1/responses/input_tokens", {"model": "MODEL", "input": "hi"}),
    ("POST", "/v1/messages"): ("/v1/messages", {"model": "MODEL", "messages": HI, "max_tokens": 5}),
    ("POST", "/v1/messages/count_tokens"): ("/v1/messages/count_tokens", {"model": "MODEL", "messages": HI}),
    ("POST", "/v1/audio/transcriptions"): ("/v1/audio/transcriptions", FORM),
    **{
        ("POST", path): (path, {"model": "MODEL", "query": "q", "documents": ["d"]})
        for path in ENDPOINTS["rerank"]
    },
    **{
        ("GET", path): (f"{path}?model=MODEL", None)
        for path in ("/props", "/slots", "/metrics", "/lora-adapters")
    },
    **{
        ("POST", path): (path, {"model": "MODEL", "content": "hi", "prompt": "hi"})
        for path in (
            *("/tokenize", "/detokenize", "/apply-template"),
            *("/infill", "/completion", "/lora-adapters"),
        )
    },
    ("*", "/upstream/{rest}"): ("/upstream/MODEL/props", None),
}
MORE_ABOUT_A_MODEL = [
    ("POST", "/api/create", {"model": "tinychat2", "from": "MODEL"}),
    ("POST", "/api/copy", {"source": "MODEL", "destination": "tinychat2"}),
    ("POST", "/tokenize?model=MODEL", {"content": "hi"}),
    ("POST", "/rerank?model=MODEL", {"query": "q", "texts": ["d"]}),
    ("GET", "/upstream/MODEL", None),
    ("GET", "/upstream/MODEL/v1/models", None),
    ("POST", "/upstream/MODEL/v1/chat/completions", CHAT),
]
LISTS = {("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/api/ps"), ("GET", "/v1/models")}
ABOUT_NONE = {
    ("HEAD", "/"): "/",
    ("GET", "/"): "/",
    ("GET", "/health"): "/health",
    ("HEAD", "/api/version"): "/api/version",
    ("GET", "/api/version"): "/api/version",
    ("GET", "/api/status"): "/api/status",
    ("GET", "/api/system/status"): "/api/system/status",
    ("GET", "/openapi.json"): "/openapi.json",
    ("HEAD", "/api/blobs/{digest}"): f"/api/blobs/sha256:{'0' * 64}",
    ("POST", "/api/blobs/{digest}"): f"/api/blobs/sha256:{'0' * 64}",
    ("GET", "/v1/responses/{id}"): "/v1/responses/resp_1",
    ("DELETE", "/v1/responses/{id}"): "/v1/responses/resp_1",
    ("GET", "/v1/responses/{id}/input_items"): "/v1/responses/resp_1/input_items",
    ("POST", "/v1/responses/{id}/cancel"): "/v1/responses/resp_1/cancel",
    ("*", "/v1/images"): "/v1/images",
    ("*", "/v1/images/{rest}"): "/v1/images/generations",
}
FREE = {("HEAD", "/"), ("GET", "/"), ("GET", "/health")}


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def limited(**more: Any) -> Keyring:
    return Keyring([msgspec.structs.replace(ANN, **more)])


def message_of(answer: Any) -> str:
    error = answer["error"]
    return str(error if isinstance(error, str) else error["message"])


async def ask(front: Front, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, JSON (or text) and headers."""
    data = body if isinstance(body, bytes | None) else json.dumps(body)
    if isinstance(body, bytes):
        headers["Content-Type"] = "multipart/form-data; boundary=x"
    verb = "POST" if method == "*" else method
    async with front.session.request(verb, path, data=data, headers=headers) as answer:
        text = await answer.read()
        try:
            return answer.status, json.loads(text), answer.headers
        except ValueError:
            return answer.status, text.decode(), answer.headers


def about(request: tuple[str, Any], model: str) -> tuple[str, Any]:
    path, body = request
    if isinstance(body, bytes):
        return path, body % model.encode()
    told = None if body is None else json.loads(json.dumps(body).replace("MODEL", model))
    return path.replace("MODEL", model), told


# -- every route


async def test_every_route_is_in_the_tables_of_this_test_and_in_one_of_the_endpoints(front: Front) -> None:
    app = build_app(front.services)
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert routes == ABOUT_A_MODEL.keys() | LISTS | ABOUT_NONE.keys()
    named = {route for group in ENDPOINTS.values() for route in group} | FOR_ANY_KEY
    assert {path for _, path in routes} == named


async def test_without_a_key_nothing_but_the_health_is_told_where_one_is_needed(
    make_front: MakeFront,
) -> None:
    requests = {
        **{route: about(request, "tinychat") for route, request in ABOUT_A_MODEL.items()},
        **{(method, path): (path, None) for method, path in LISTS},
        **{route: (path, None) for route, path in ABOUT_NONE.items()},
    }
    async with make_front(server=NEEDED, keyring=Keyring([ANN])) as front:
        for (method, route), (path, body) in requests.items():
            for headers in ({}, bearer("lmk-wrong"), {"x-api-key": ""}, {"Authorization": f"Basic {SECRET}"}):
                status, _, told = await ask(front, method, path, body, **headers)
                if (method, route) in FREE:
                    assert status == 200, route
                else:
                    assert (status, told["WWW-Authenticate"]) == (401, "Bearer"), route
        assert (await ask(front, "GET", "/no/such/route"))[0] == 401
        assert front.children.granted == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models"])
async def test_clients_are_told_not_to_try_again_what_their_key_may_not_ask(
    make_front: MakeFront, path: str
) -> None:
    async with make_front(server=NEEDED, keyring=limited(endpoints=("rerank",))) as front:
        for headers, refused in ((bearer("lmk-wrong"), 401), (bearer(), 403)):
            method = "GET" if path == "/v1/models" else "POST"
            status, _, told = await ask(front, method, path, None, **headers)
            assert (status, told["x-should-retry"]) == (refused, "false")
        _, _, told = await ask(front, "POST", "/api/chat", None, **bearer())
        assert "x-should-retry" not in told


async def test_no_route_serves_a_model_that_a_key_is_not_for_nor_tells_whether_it_is_there(
    make_front: MakeFront,
) -> None:
    requests = [(method, request) for (method, _), request in ABOUT_A_MODEL.items()]
    requests += [(method, (path, body)) for method, path, body in MORE_ABOUT_A_MODEL]
    async with make_front(server=NEEDED, keyring=limited(models=("tinychat", "tinychat2"))) as front:
        for method, request in requests:
            said = []
            for model in ("tinyembed", "nothere"):
                path, body = about(request, model)
                status, answer, _ = await ask(front, method, path, body, **bearer())
                assert status == 403, (path, status, answer)
                said.append(message_of(answer).replace(":latest", "").replace(model, "it"))
            assert said[0] == said[1] == 'this API key may not use the model "it"'
        assert front.children.granted == []
        assert {card.name for card in front.services.index.refresh().models} == {
            "selftest:latest",
            "tinychat:latest",
            "tinyembed:latest",
        }


async def test_lists_tell_only_of_models_that_a_key_is_for(make_front: MakeFront) -> None:
    keyring = limited(models=("tinychat",))
    async with make_front(keyring=keyring) as front:
        for model in ("tinychat", "tinyembed"):
            await front.whole("/api/show", model=model)
        await front.whole("/api/chat", **CHAT)
        await front.whole("/api/embed", model="tinyembed", input="hi")
        anthropic = {"anthropic-version": "2023-06-01"}
        for path, field, more in (
            ("/api/tags", "models", {}),
            ("/api/ps", "models", {}),
            ("/v1/models", "data", {}),
            ("/v1/models", "data", anthropic),
        ):
            _, everything, _ = await ask(front, "GET", path, **more)
            _, answer, _ = await ask(front, "GET", path, **bearer(), **more)
            names = [model.get("name") or model["id"] for model in answer[field]]
            assert names == ["tinychat:latest"]
            assert len(everything[field]) > 1
        status, _, _ = await ask(front, "GET", "/slots", **bearer())  # the only one loaded, for this visitor
        assert status == 200


async def test_no_route_hands_a_key_on_to_an_engine(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    for name in ("request_bytes", "request_head"):
        plain = getattr(http1, name)
        monkeypatch.setattr(http1, name, lambda *args, plain=plain: sent.append(plain(*args)) or sent[-1])
    ways = (bearer(), {"x-api-key": SECRET}, {"Api-Key": SECRET}, {"Cookie": f"key={SECRET}", **bearer()})
    async with make_front(server=NEEDED, keyring=Keyring([ANN])) as front:
        for (method, route), request in ABOUT_A_MODEL.items():
            if method == "DELETE" or route in ("/api/create", "/api/copy", "/api/pull"):
                continue
            for headers in ways:
                for model in ("tinychat", "tinyembed"):
                    status, _, _ = await ask(front, method, *about(request, model), **headers)
                    assert status not in (401, 403, 500)
    assert len(sent) > 50
    assert not [head for head in sent if SECRET.encode() in head]


# -- who gets in


@pytest.mark.parametrize(
    "headers",
    [
        bearer(),
        {"Authorization": f"bearer  {SECRET} "},
        {"X-Api-Key": SECRET},
        {"api-key": SECRET},
        {"Authorization": "Bearer dummy", "x-api-key": SECRET},
    ],
)
async def test_a_key_is_taken_from_any_header_that_clients_use(
    make_front: MakeFront, headers: dict[str, str]
) -> None:
    async with make_front(server=NEEDED, keyring=Keyring([ANN])) as front:
        assert (await ask(front, "GET", "/api/tags", **headers))[0] == 200


async def test_a_key_in_the_address_opens_nothing(make_front: MakeFront) -> None:
    async with make_front(server=NEEDED, keyring=Keyring([ANN])) as front:
        for query in (f"api_key={SECRET}", f"key={SECRET}"):
            assert (await ask(front, "GET", f"/api/tags?{query}"))[0] == 401


async def test_a_front_for_the_network_needs_a_key_unless_somebody_says_otherwise(
    make_front: MakeFront,
) -> None:
    for server, status in (
        (ServerConfig(host="0.0.0.0:0"), 401),
        (ServerConfig(host="llm.example:80"), 401),
        (ServerConfig(host="[::]:0"), 401),
        (ServerConfig(host="192.168.1.2"), 401),
        (ServerConfig(host="0.0.0.0:0", allow_network_without_key=True), 200),
        (ServerConfig(host="0.0.0.0:0", allow_network_without_key=True, require_key=True), 401),
        (ServerConfig(host="127.8.8.8"), 200),
        (ServerConfig(host="[::1]"), 200),
        (ServerConfig(host="localhost"), 200),
    ):
        async with make_front(server=server) as front:
            assert (await ask(front, "GET", "/api/tags"))[0] == status, server


async def test_on_loopback_a_dummy_is_nobody_but_a_key_is_held_to_its_limits(make_front: MakeFront) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    old = Key(hash_of("lmk-old"), "old", expires=past)
    ann = msgspec.structs.replace(ANN, models=("tinychat",), endpoints=("chat",))
    async with make_front(keyring=Keyring([ann, old])) as front:
        assert (await ask(front, "GET", "/api/tags", **bearer("ollama")))[0] == 200
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 403
        assert (await ask(front, "POST", "/api/generate", {"model": "tinyembed"}, **bearer()))[0] == 403
        status, answer, _ = await ask(front, "GET", "/api/tags", **bearer("lmk-old"))
        assert (status, "expired" in message_of(answer)) == (401, True)


async def test_a_key_expires_while_the_front_runs(make_front: MakeFront) -> None:
    now = [100.0]
    until = datetime.datetime.fromtimestamp(101, datetime.UTC)
    keyring = Keyring([msgspec.structs.replace(ANN, expires=until)], now=lambda: now[0])
    async with make_front(server=NEEDED, keyring=keyring) as front:
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 200
        now[0] = 101.0
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 401


async def test_keys_are_made_and_taken_back_while_the_front_runs(make_front: MakeFront) -> None:
    async with make_front(server=NEEDED) as front:
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 401
        front.services.keyring.replace([ANN])
        async with front.post("/api/generate", endless(), headers=bearer()) as stream:
            assert stream.status == 200
            front.services.keyring.replace([])
            assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 401
            assert await stream.content.readline()  # what runs already ends as it began


async def test_a_stranger_is_refused_before_the_body_is_read(make_front: MakeFront) -> None:
    async with make_front(server=NEEDED) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head)
        async with asyncio.timeout(10):
            assert b" 401 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/blobs/sha256:0"])
async def test_a_stranger_is_not_asked_for_a_body_that_he_holds_back(
    make_front: MakeFront, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
    async with make_front(server=NEEDED, keyring=limited()) as front:
        async with wire(front.port) as client:
            client.send(f"{head}\r\n")
            assert (await client.answer()).status == 401
        async with wire(front.port) as client:
            client.send(f"{head}Authorization: Bearer {SECRET}\r\n\r\n")
            assert (await client.answer()).status == 100
            client.send("{}")
            assert (await client.answer()).status == 400


async def test_refusals_come_in_the_dialect_of_the_path(make_front: MakeFront) -> None:
    async with make_front(server=NEEDED, keyring=limited(endpoints=("rerank",), rate="1/h")) as front:
        ollama, openai, anthropic = "/api/chat", "/v1/chat/completions", "/v1/messages"
        assert isinstance((await ask(front, "POST", ollama))[1]["error"], str)
        told = (await ask(front, "POST", openai))[1]["error"]
        assert (told["type"], told["code"]) == ("authentication_error", "invalid_api_key")
        told = (await ask(front, "POST", anthropic))[1]
        assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")

        told = (await ask(front, "POST", openai, **bearer()))[1]["error"]
        assert (told["type"], told["code"]) == ("permission_error", "endpoint_not_allowed")
        told = (await ask(front, "POST", anthropic, **bearer()))[1]
        assert told["error"]["type"] == "permission_error"

        await ask(front, "GET", "/api/version", **bearer())
        for path, kind in (("/v1/rerank", "openai"), ("/api/version", "ollama")):
            status, answer, headers = await ask(
                front, "POST" if "v1" in path else "GET", path, {}, **bearer()
            )
            assert (status, headers["Retry-After"]) == (429, "3600")
            assert isinstance(answer["error"], str) is (kind == "ollama")
            if kind == "openai":
                assert (answer["error"]["type"], answer["error"]["code"]) == (
                    "rate_limit_error",
                    "rate_limit_exceeded",
                )


async def test_a_browser_may_read_why_it_was_refused_and_may_send_a_key(make_front: MakeFront) -> None:
    origin = {"Origin": "http://localhost:3000"}
    async with make_front(server=NEEDED, keyring=limited(endpoints=("chat",))) as front:
        for headers, status in (({}, 401), (bearer(), 403)):
            told = await ask(front, "GET", "/api/tags", **origin, **headers)
            assert (told[0], told[2]["Access-Control-Allow-Origin"]) == (status, origin["Origin"])
        preflight = await ask(front, "OPTIONS", "/v1/messages", **origin)
        assert preflight[0] == 204
        assert "X-Api-Key" in preflight[2]["Access-Control-Allow-Headers"]


# -- limits


def endless() -> dict[str, Any]:
    return {"model": "tinychat", "prompt": ENDLESS, "options": {"num_predict": -1}}


@asynccontextmanager
async def running(front: Front, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A generation that goes on until this block ends."""
    async with front.post("/api/generate", endless(), headers=headers) as stream:
        assert await stream.content.readline()
        yield stream


async def until_idle(front: Front) -> None:
    async with asyncio.timeout(10):
        while front.children.leases:
            await asyncio.sleep(0.01)


async def test_a_rate_counts_every_request_of_a_key_and_of_no_other(make_front: MakeFront) -> None:
    now = [0.0]
    ann, bob = (
        Key(hash_of(secret), name, rate="2/m") for secret, name in ((SECRET, "ann"), ("lmk-bob", "bob"))
    )
    async with make_front(server=NEEDED, keyring=Keyring([ann, bob], clock=lambda: now[0])) as front:
        statuses = [(await ask(front, "GET", "/api/tags", **bearer()))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await ask(front, "GET", "/api/tags", **bearer("lmk-bob")))[0] == 200
        assert (await ask(front, "GET", "/health", **bearer()))[0] == 200
        now[0] = 30.0
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 200
        front.services.keyring.replace([msgspec.structs.replace(ann, name="anna"), bob])
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 429  # a new name is no new start


async def test_a_key_has_only_so_many_requests_at_once(make_front: MakeFront) -> None:
    async with make_front(server=NEEDED, keyring=limited(parallel=1, rate="9/m")) as front:
        async with running(front, **bearer()):
            status, _, headers = await ask(front, "GET", "/api/tags", **bearer())
            assert (status, headers["Retry-After"]) == (429, "1")
        await until_idle(front)
        assert (await ask(front, "GET", "/api/tags", **bearer()))[0] == 200
        assert front.services.keyring._running == {}


async def test_the_front_takes_only_so_many_requests_at_once_and_stays_healthy(make_front: MakeFront) -> None:
    async with make_front(server=ServerConfig(max_requests=1)) as front:
        async with running(front):
            for path in ("/api/tags", "/v1/models"):
                status, answer, headers = await ask(front, "GET", path)
                assert (status, headers["Retry-After"]) == (503, "1")
                assert "server busy" in message_of(answer)
            assert (await ask(front, "GET", "/health"))[0] == 200
        await until_idle(front)
        assert (await ask(front, "GET", "/api/tags"))[0] == 200


async def test_the_priority_of_a_key_goes_with_every_lease(make_front: MakeFront) -> None:
    async with make_front(keyring=limited(priority=7)) as front:
        for path, body in (
            ("/api/chat", CHAT),
            ("/api/generate", {"model": "tinychat"}),
            ("/v1/chat/completions", CHAT),
            ("/tokenize", {"model": "tinychat", "content": "hi"}),
        ):
            assert (await ask(front, "POST", path, {"stream": False, **body}, **bearer()))[0] == 200
        assert front.children.priorities == [7, 7, 7, 7]
        await front.whole("/api/chat", **CHAT)
        assert front.children.priorities[-1] == 0


# -- scopes


async def test_a_model_in_scope_is_served_by_every_name_it_has(make_front: MakeFront) -> None:
    keyring = limited(models=("gpt-4o", "other*"))
    async with make_front(keyring=keyring) as front:
        config = msgspec.structs.replace(
            front.services.config, models={"tinychat": ModelConfig(aliases=("gpt-4o",))}
        )
        front.services.config = config
        front.services.index.reconfigure(config)
        for name in ("gpt-4o", "tinychat", "TinyChat:latest", "library/tinychat"):
            status, answer, _ = await ask(front, "POST", "/api/show", {"model": name}, **bearer())
            assert status == 200, answer
        status, answer, _ = await ask(front, "POST", "/api/show", {"model": "otherwise"}, **bearer())
        assert (status, "not found" in message_of(answer)) == (404, True)
        assert (await ask(front, "GET", "/upstream/gpt-4o/props", **bearer()))[0] == 200
        assert (await ask(front, "GET", "/upstream/otherwise/props", **bearer()))[0] == 404


async def test_an_alias_is_listed_to_those_who_may_use_its_model(make_front: MakeFront) -> None:
    models = {"tinychat": {"aliases": ["gpt-4o"]}, "tinyembed": {"aliases": ["ada"]}}
    async with make_front(keyring=limited(models=("tinychat",)), models=models) as front:
        _, tags, _ = await ask(front, "GET", "/api/tags", **bearer())
        assert [model["name"] for model in tags["models"]] == ["tinychat:latest", "gpt-4o:latest"]
        _, listed, _ = await ask(front, "GET", "/v1/models", **bearer())
        assert [model["id"] for model in listed["data"]] == ["tinychat:latest", "gpt-4o"]


async def test_a_path_pattern_opens_that_much_of_an_engine(make_front: MakeFront) -> None:
    async with make_front(keyring=limited(endpoints=("/upstream/tinychat/props",))) as front:
        for path, status in (
            ("/upstream/tinychat/props", 200),
            ("/upstream/tinychat/slots", 403),
            ("/upstream/tinychat/%70rops", 200),
        ):
            assert (await ask(front, "GET", path, **bearer()))[0] == status, path


async def test_an_answer_that_is_remembered_is_its_owners_alone(make_front: MakeFront) -> None:
    bob, namesake = Key(hash_of("lmk-bob"), "bob"), Key(hash_of("lmk-later"), "ann")
    asked = {"model": "tinychat", "input": "hi"}
    async with make_front(keyring=Keyring([ANN, bob, namesake])) as front:
        _, kept, _ = await ask(front, "POST", "/v1/responses", asked, **bearer())
        path = f"/v1/responses/{kept['id']}"
        on = {**asked, "previous_response_id": kept["id"]}
        meant = {**asked, "input": [{"type": "item_reference", "id": kept["output"][0]["id"]}]}
        for stranger in ({}, bearer("lmk-bob"), bearer("lmk-later")):
            assert (await ask(front, "GET", path, **stranger))[0] == 404
            assert (await ask(front, "DELETE", path, **stranger))[0] == 404
            assert (await ask(front, "GET", f"{path}/input_items", **stranger))[0] == 404
            assert (await ask(front, "POST", f"{path}/cancel", **stranger))[0] == 404
            for route in ("/v1/responses", "/v1/responses/input_tokens"):
                assert (await ask(front, "POST", route, on, **stranger))[0] == 400
                assert (await ask(front, "POST", route, meant, **stranger))[0] == 404
        assert (await ask(front, "POST", "/v1/responses", on, **bearer()))[0] == 200
        assert (await ask(front, "POST", "/v1/responses", meant, **bearer()))[0] == 200
        assert (await ask(front, "GET", path, **bearer()))[0] == 200
        assert (await ask(front, "GET", f"{path}/input_items", **bearer()))[0] == 200


async def test_outside_of_a_request_no_model_is_resolved(front: Front) -> None:
    with pytest.raises(LookupError):
        await front.services.resolve("tinychat")
