"""Media by address: fetched where it is allowed, from public networks only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from aiohttp import web

from llamamgr.core.config import ServerConfig
from llamamgr.proxy import media
from llamamgr.proxy.media import Fetching, is_public
from llamamgr.wire.errors import DialectError
from tests.proxy.conftest import Front, MakeFront, serving


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def site() -> web.Application:
    async def image(request: web.Request) -> web.Response:
        return web.Response(body=b"\x89PNG", content_type="image/png")

    async def text(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async def huge(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (media.MOST_BYTES + 1), content_type="image/png")

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    app = web.Application()
    for name, handler in (("a.png", image), ("text", text), ("huge", huge), ("away", away)):
        app.router.add_get(f"/{name}", handler)
    return app


async def test_what_is_fetched_is_enclosed_redirects_included() -> None:
    async with serving(site()) as port:
        base = f"http://127.0.0.1:{port}"
        addresses = [f"{base}/a.png", f"{base}/away?to=/a.png"]
        found = await Fetching(lambda address: True).enclosures(addresses)
    assert found == dict.fromkeys(addresses, "data:image/png;base64,iVBORw==")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("text", "no image"),
        ("huge", "longer than"),
        ("missing", "it answered 404"),
        ("away?to=/away?to=/a.png", "redirects too often"),
        ("away?to=file:///etc/passwd", "only http and https"),
    ],
)
async def test_what_is_no_image_is_refused(path: str, said: str) -> None:
    async with serving(site()) as port:
        if path.startswith("away?to=/away"):
            path = (
                f"away?to=http%3A%2F%2F127.0.0.1%3A{port}%2Faway%3Fto%3D%2Faway%3Fto%3D%2Faway%3Fto%3D%2Faway"
            )
        with pytest.raises(DialectError, match=said):
            await Fetching(lambda address: True).enclosures([f"http://127.0.0.1:{port}/{path}"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
async def test_this_machine_is_never_asked_however_it_is_written(host: str) -> None:
    async with serving(site()) as port:
        with pytest.raises(DialectError, match=r"not public|could not be fetched"):
            await Fetching().enclosures([f"http://{host}:{port}/a.png"])


async def test_a_redirect_leads_to_no_private_address() -> None:
    async with serving(site()) as port:
        allowed = {"first": True}

        def once(address: object) -> bool:
            return allowed.pop("first", False)

        with pytest.raises(DialectError, match="not public"):
            await Fetching(once).enclosures(
                [f"http://127.0.0.1:{port}/away?to=http://127.0.0.1:{port}/a.png"]
            )


async def test_too_many_addresses_are_refused() -> None:
    with pytest.raises(DialectError, match="more than 32"):
        await Fetching().enclosures([f"http://x.example/{number}" for number in range(33)])


async def test_all_images_of_a_request_together_are_no_longer_than_a_body_may_be() -> None:
    async with serving(site()) as port:
        addresses = [f"http://127.0.0.1:{port}/a.png?{number}" for number in range(5)]
        fetching = Fetching(lambda address: True)
        assert len(await fetching.enclosures(addresses, most=5 * 4)) == 5
        with pytest.raises(DialectError, match="images are longer than 19 bytes"):
            await fetching.enclosures(addresses, most=19)


async def test_no_more_are_fetched_at_once_than_the_machine_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST_AT_ONCE", 3)
    now, most = 0, 0

    async def image(request: web.Request) -> web.Response:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response(body=b"x", content_type="image/png")

    app = web.Application()
    app.router.add_get("/{name}", image)
    async with serving(app) as port:
        fetching = Fetching(lambda address: True)
        requests = [[f"http://127.0.0.1:{port}/{row}-{number}" for number in range(4)] for row in range(3)]
        await asyncio.gather(*map(fetching.enclosures, requests))
    assert most == 3


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
async def test_nothing_is_fetched_for_a_model_that_is_not_there(make_front: MakeFront, path: str) -> None:
    asked = []

    class Watched(Fetching):
        async def enclosures(self, addresses: Sequence[str], most: int = 0) -> dict[str, str]:
            asked.append(addresses)
            return {}

    [(field, content)] = [(field, content) for other, field, content in ASKED if other == path]
    async with make_front(server=ServerConfig(fetch_media=True)) as front:
        front.services.fetching = Watched()
        for model, status in (("nope", 404), ("tinychat", 400)):  # the latter sees nothing
            body = {"model": model, "max_tokens": 5, field: [{"role": "user", "content": content}]}
            assert (await front.whole(path, **body))[0] == status
    assert asked == []


ASKED = [
    (
        "/v1/chat/completions",
        "messages",
        [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}],
    ),
    (
        "/v1/messages",
        "messages",
        [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/a.png"}}],
    ),
    ("/v1/responses", "input", [{"type": "input_image", "image_url": "http://127.0.0.1:9/a.png"}]),
]


@pytest.mark.parametrize(("path", "field", "content"), ASKED, ids=[path for path, _, _ in ASKED])
@pytest.mark.parametrize("fetching", [False, True])
async def test_each_dialect_refuses_addresses_unless_fetching_is_configured(
    make_front: MakeFront,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    field: str,
    content: list[object],
    fetching: bool,
) -> None:
    async with make_front(server=ServerConfig(fetch_media=fetching)) as front:
        give_eyes(front, monkeypatch)
        body = {"model": "tinychat", "max_tokens": 5, field: [{"role": "user", "content": content}]}
        status, told = await front.whole(path, **body)
    message = told["error"]["message"]
    assert status == 400
    assert ("its address is not public" in message) == fetching
    assert ("base64" in message) == (not fetching)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_what_a_tool_gave_by_an_address_is_not_fetched_for_a_model_that_cannot_see(
    make_front: MakeFront, path: str
) -> None:
    image = {route: content for route, _, content in ASKED}[path]
    if path == "/v1/messages":
        said = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": image}]}]
        body: dict[str, object] = {"messages": said, "max_tokens": 5}
    else:
        body = {"input": [{"type": "function_call_output", "call_id": "1", "output": image}]}
    async with make_front(server=ServerConfig(fetch_media=True)) as front:
        assert (await front.whole(path, model="tinychat", **body))[0] == 200


def give_eyes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    index = front.services.index
    seeing = msgspec.structs.replace(index.resolve("tinychat"), capabilities=("completion", "vision"))
    monkeypatch.setattr(index, "recall", lambda name: seeing)
