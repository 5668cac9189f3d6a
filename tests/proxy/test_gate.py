"""Who may ask, and how what is no route is answered."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yarl

from llamamgr.core.config import ServerConfig
from llamamgr.core.keys import Key, hash_of
from llamamgr.proxy.doorkeeper import Doorkeeper
from llamamgr.proxy.gate import access
from llamamgr.proxy.keyring import Keyring
from llamamgr.proxy.metrics import RouteMetrics
from llamamgr.proxy.visit import RequestLabel, Visit, begin
from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import HI, Front, MakeFront


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("https://127.0.0.1:8443", True),
        ("app://obsidian.md", True),
        ("vscode-webview://x", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("http://box:11434", True),
        ("https://ui.example", True),
    ],
)
def test_local_configured_and_own_origins_are_allowed(origin: str, allowed: bool) -> None:
    keeper = Doorkeeper(lambda: ServerConfig(origins=("https://ui.example",)), "box")
    assert keeper.allows_origin(origin, "box:11434") is allowed


def test_a_star_allows_every_origin_and_is_told_as_a_star() -> None:
    keeper = Doorkeeper(lambda: ServerConfig(origins=("*",)), "box")
    assert keeper.allows_origin("https://any.example", "x")
    assert keeper.allow_origin_header("https://any.example") == "*"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:11434", True),
        ("127.0.0.1", True),
        ("[::1]:11434", True),
        ("192.168.1.7:11434", True),
        ("BOX", True),
        ("llm.localhost", True),
        ("nas.local:80", True),
        ("host.docker.internal", True),
        ("", True),
        ("evil.example", False),
        ("localhost.evil.example:11434", False),
        ("8.8.8.8", False),
    ],
)
def test_on_loopback_only_hosts_of_this_machine_are_allowed(host: str, allowed: bool) -> None:
    assert Doorkeeper(ServerConfig, "box").allows_host(host) is allowed


def test_a_front_for_the_network_takes_any_host() -> None:
    keeper = Doorkeeper(lambda: ServerConfig(host="0.0.0.0:11434"), "box")
    assert keeper.allows_host("llm.example")


async def test_strangers_get_403_and_no_word(front: Front) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        async with front.session.get("/api/tags", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (403, b"")
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_an_allowed_origin_may_read_streams_and_errors_too(front: Front) -> None:
    headers = {"Origin": "http://localhost:3000"}
    for path, body in (("/api/generate", b'{"model":"tinychat","prompt":"hi"}'), ("/api/show", b"{}")):
        async with front.post(path, body, headers=headers) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


async def test_a_preflight_is_204_with_what_is_allowed(front: Front) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    async with front.session.options("/api/chat", headers=headers) as answer:
        assert (answer.status, answer.headers["Allow"]) == (204, "POST")
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


async def test_a_page_may_send_every_header_that_its_client_has(front: Front) -> None:
    asked = "anthropic-dangerous-direct-browser-access,anthropic-version, x-api-key"
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for names, answered in ((asked, True), ("a b", False), ("x" + "\t,y" * 9 + ",", False)):
        async with front.session.options(
            "/v1/messages", headers={**headers, "Access-Control-Request-Headers": names}
        ) as answer:
            assert answer.headers["Access-Control-Allow-Headers"].endswith(f",{names}") is answered


async def test_a_page_may_read_request_ids_and_when_to_try_again(front: Front) -> None:
    async with front.session.get("/api/version", headers={"Origin": "http://localhost:3000"}) as answer:
        assert {"X-Request-Id", "Request-Id", "Retry-After", "X-Should-Retry"} <= set(
            answer.headers["Access-Control-Expose-Headers"].split(",")
        )
    async with front.session.get("/api/version") as answer:
        assert "Access-Control-Expose-Headers" not in answer.headers


async def test_unknown_paths_and_methods_are_answered_as_plain_text(front: Front) -> None:
    async with front.session.get("/api/nope") as answer:
        assert (answer.status, await answer.read()) == (404, b"404 page not found")
        assert answer.headers["Content-Type"] == "text/plain"
    async with front.session.post("/api/tags") as answer:
        assert (answer.status, await answer.read()) == (405, b"405 method not allowed")
        assert answer.headers["Allow"] == "HEAD, GET"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("POST", "/v1/moderations", {}, 404, "openai"),
        ("GET", "/v1/chat/completions", {}, 405, "openai"),
        ("GET", "/v1", {}, 404, "openai"),
        ("POST", "/v1/messages/batches", {}, 404, "anthropic"),
        ("GET", "/v1/messages", {}, 405, "anthropic"),
        ("GET", "/v1/files", {"anthropic-version": "2023-06-01"}, 404, "anthropic"),
    ],
)
async def test_what_of_v1_is_not_served_is_told_in_the_dialect_that_was_spoken(
    front: Front, method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    async with front.session.request(method, path, headers=headers) as answer:
        told = await answer.json()
        assert answer.status == status
        assert f"Invalid URL ({method} {path})" in told["error"]["message"]
        assert ("Allow" in answer.headers) is (status == 405)
        if kind == "anthropic":
            assert (told["type"], told["request_id"]) == ("error", answer.headers["request-id"])
        else:
            assert told["error"]["code"] == ("unknown_url" if status == 404 else "method_not_supported")


async def test_each_answer_has_a_request_id_and_a_sane_one_is_kept(front: Front) -> None:
    async with front.session.get("/", headers={"X-Request-Id": "abc-1"}) as answer:
        assert answer.headers["X-Request-Id"] == "abc-1"
    async with front.session.get("/", headers={"X-Request-Id": "a b\t<"}) as answer:
        assert len(answer.headers["X-Request-Id"]) == 16


async def test_streams_and_refusals_have_a_request_id_too(front: Front) -> None:
    headers = {"X-Request-Id": "abc-1"}
    stream = {"model": "tinychat", "prompt": "hi"}
    for path, body in (("/api/generate", stream), ("/api/show", {}), ("/nope", {})):
        async with front.post(path, body, headers=headers) as answer:
            assert answer.headers["X-Request-Id"] == "abc-1"


class Lines(logging.Handler):
    """What is logged, as the daemon would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestLabel())
        self.setFormatter(logging.Formatter("%(name)s %(request)s%(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    async def until(self, start: str) -> str:
        """The first line that begins with ``start``; the log is written when an answer is over, not when it is read."""
        async with asyncio.timeout(10):
            while not (found := [line for line in self.lines if line.startswith(start)]):
                await asyncio.sleep(0.01)
        return found[0]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


async def test_what_is_logged_for_a_request_tells_its_id(
    front: Front, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(front.services.index, "resolve", fail)
    async with front.post("/api/show", {"model": "x"}, headers={"X-Request-Id": "abc-1"}):
        pass
    assert await lines.until("llamamgr.proxy.replies [abc-1] POST /api/show failed")


async def test_what_outlives_its_request_is_logged_for_none(lines: Lines) -> None:
    log = logging.getLogger("llamamgr.test")
    over = asyncio.Event()

    async def outlive() -> None:
        log.warning("early")
        await over.wait()
        log.warning("late")

    async with asyncio.TaskGroup() as tasks:
        visit = begin(Visit("abc-1", RouteMetrics(), 0.0))
        tasks.create_task(outlive())
        await asyncio.sleep(0)
        visit.is_over = True
        over.set()
    assert lines.lines == ["llamamgr.test [abc-1] early", "llamamgr.test late"]


async def test_the_access_log_tells_who_asked_what_but_no_word_of_it(
    make_front: MakeFront, lines: Lines
) -> None:
    secret, headers = "lmk-secret", {"Authorization": "Bearer lmk-secret", "X-Request-Id": "abc-1"}
    keyring = Keyring([Key(hash_of(secret), "ann")])
    body = {"model": "tinychat", "prompt": "a private word", "stream": False}
    async with make_front(server=ServerConfig(access_log=True), keyring=keyring) as front:
        access.setLevel(logging.INFO)
        try:
            async with front.post("/api/generate?secret=word", body, headers=headers):
                pass
            line = await lines.until("llamamgr.access [abc-1] POST")
            address = yarl.URL("/no%0Aline", encoded=True)
            async with front.session.get(address, headers={"X-Request-Id": "abc-2"}):
                pass
            assert await lines.until("llamamgr.access [abc-2] GET /no%0Aline 404")
        finally:
            access.setLevel(logging.NOTSET)
    assert re.fullmatch(
        r"llamamgr\.access \[abc-1\] POST /api/generate 200 \d+\.\d ms key=ann model=tinychat:latest", line
    )
    assert not [line for line in lines.lines if "word" in line or secret in line or "\n" in line]


async def test_a_client_that_leaves_is_noted_as_such(make_front: MakeFront, lines: Lines) -> None:
    async with make_front(server=ServerConfig(access_log=True)) as front:
        access.setLevel(logging.INFO)
        try:
            body = {"model": "tinychat", "prompt": ENDLESS, "options": {"num_predict": -1}}
            async with front.post("/api/generate", body, headers={"X-Request-Id": "abc-1"}) as answer:
                await answer.content.readline()
            line = await lines.until("llamamgr.access [abc-1]")
        finally:
            access.setLevel(logging.NOTSET)
    assert " 499 " in line


async def test_without_an_access_log_nothing_is_written_of_a_request_that_went_well(
    front: Front, lines: Lines
) -> None:
    async with front.session.get("/api/tags"):
        pass
    assert lines.lines == []


async def test_a_fault_of_our_own_is_500_without_its_details(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(front.services.index, "resolve", fail)
    status, answer = await front.whole(
        "/api/chat", model="tinychat", messages=[{"role": "user", "content": "hi"}]
    )
    assert (status, answer["error"]) == (500, "internal error: the daemon's log has the details")
    assert "secret" in caplog.text


async def test_bytes_that_are_no_http_do_not_disturb_the_next_request(front: Front) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert b"400" in await reader.read()
    writer.close()
    async with front.session.get("/") as answer:
        assert await answer.read() == b"Ollama is running"


async def test_openais_clients_are_told_how_long_it_took_and_nobody_else(front: Front) -> None:
    chat = {"model": "tinychat", "messages": HI}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/responses", {"model": "tinychat", "input": "hi"}),
        ("/v1/chat/completions", {}),
    ):
        async with front.post(path, body) as answer:
            assert answer.headers["openai-processing-ms"].isdigit()
            await answer.read()
    for path in ("/v1/messages", "/api/chat"):
        async with front.post(path, {**chat, "max_tokens": 5}) as answer:
            assert "openai-processing-ms" not in answer.headers
            await answer.read()


async def test_events_are_to_be_held_back_by_nobody(front: Front) -> None:
    chat = {"model": "tinychat", "messages": HI, "stream": True, "max_tokens": 5}
    for path in ("/v1/chat/completions", "/v1/messages"):
        async with front.post(path, chat) as answer:
            told = answer.headers
            assert (told["Cache-Control"], told["X-Accel-Buffering"]) == ("no-cache", "no")
            await answer.read()


async def test_what_is_configured_anew_holds_at_once(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    async def asked(origin: str = "") -> int:
        headers = {"Origin": origin} if origin else {}
        async with front.session.get("/api/tags", headers=headers) as answer:
            return answer.status

    def configure(**server: Any) -> None:
        former = front.services.config
        front.services.config = msgspec.structs.replace(former, server=ServerConfig(**server))

    assert (await asked(), await asked("https://ui.example")) == (200, 403)
    configure(origins=("https://ui.example",))
    assert await asked("https://ui.example") == 200
    configure(require_key=True)
    assert (await asked(), await asked("https://ui.example")) == (401, 403)
    configure(max_requests=0)
    assert await asked() == 503
    caplog.set_level(logging.INFO, access.name)

    def noted() -> int:
        return sum(record.name == access.name for record in caplog.records)

    assert (await asked(), noted()) == (503, 0)
    configure(access_log=True)
    assert (await asked(), noted()) == (200, 1)


async def test_a_new_address_in_the_configuration_moves_no_front(make_front: MakeFront) -> None:
    """What listens beyond loopback goes on asking for keys until it is started anew."""
    async with make_front(server=ServerConfig(host="0.0.0.0:11434")) as front:
        front.services.config = msgspec.structs.replace(front.services.config, server=ServerConfig())
        async with front.session.get("/api/tags") as answer:
            assert answer.status == 401
