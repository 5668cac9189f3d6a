"""The control API."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llamamgr.core.errors import (
    EXIT_CODE,
    BusyError,
    DeadlineError,
    LlamamgrError,
    MissingToolError,
    PermissionDeniedError,
)
from llamamgr.core.names import ModelName
from llamamgr.daemon.client import _error_of
from llamamgr.models import create as making
from llamamgr.proxy.control import build_control_app
from tests.proxy.conftest import HI, Front, serving


@pytest.fixture
async def control(front: Front) -> AsyncIterator[Front]:
    async with (
        serving(build_control_app(front.services)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        inner = Front(front.services, front.children, session, port)
        inner.stopped = front.stopped
        yield inner


async def test_the_public_address_has_no_control(front: Front) -> None:
    async with front.session.get("/control/ping") as answer:
        assert answer.status == 404


async def test_ping_tells_version_pid_and_start(control: Front) -> None:
    async with control.session.get("/control/ping") as answer:
        told = json.loads(await answer.read())
    assert told == {
        "version": "1.2.3",
        "pid": os.getpid(),
        "started": 1000.0,
        "stopping": False,
        "loop_lag_p99": 0.0,
        "flags": {},
        "url": "",
    }


async def test_the_public_api_is_there_too_and_tells_hints(control: Front) -> None:
    assert (await control.lines("/api/chat", model="tinychat", messages=HI))[-1]["done"]
    status, answer = await control.whole("/api/chat", model="tinychap", messages=HI)
    assert status == 404
    assert answer["error"].startswith("model 'tinychap' not found\nhint: did you mean tinychat:latest")


@pytest.mark.parametrize(
    "error",
    [
        MissingToolError("no llama.cpp is installed yet", "run `llamamgr install`"),
        BusyError("full", "later"),
        PermissionDeniedError("not yours", "ask"),
        DeadlineError("too slow", "wait"),
    ],
)
async def test_an_error_comes_to_the_command_line_as_the_kind_that_it_is(
    control: Front, front: Front, error: LlamamgrError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(model: object, **how: object) -> bool:
        raise error

    monkeypatch.setattr(control.services.children, "unload", refuse)
    async with control.post("/control/stop-model", b'{"model":"tinychat"}') as answer:
        told = _error_of(answer.status, answer.headers[EXIT_CODE], await answer.read())
    assert (type(told), told.what, told.hint) == (type(error), error.what, error.hint)


async def test_the_public_address_tells_no_exit_code(front: Front) -> None:
    async with front.post("/api/chat", b'{"model":"nope"}') as answer:
        assert answer.status == 404
        assert EXIT_CODE not in answer.headers


async def test_ps_and_stop_model_show_and_end_a_child(control: Front) -> None:
    await control.whole("/api/chat", model="tinychat", messages=HI)
    async with control.session.get("/control/ps") as answer:
        (child,) = json.loads(await answer.read())["children"]
    assert "chat_template" not in child["model"]
    assert (child["model"]["name"], child["state"], child["queued"]) == ("tinychat:latest", "ready", 0)
    for expected in (True, False):
        assert await control.whole("/control/stop-model", model="tinychat") == (200, {"stopped": expected})


async def test_stop_model_ends_what_ps_shows_though_the_model_is_gone(control: Front) -> None:
    index = control.services.index
    making.copy(index.store, index.resolve("tinychat"), ModelName.parse("mine"))
    index.refresh()
    await control.whole("/api/chat", model="mine", messages=HI)
    making.delete(index.store, index.resolve("mine"))
    index.refresh()
    assert await control.whole("/control/stop-model", model="Mine") == (200, {"stopped": True})
    assert (await control.whole("/control/stop-model", model="mine"))[0] == 404


async def test_stop_model_names_what_is_wrong_with_its_body(control: Front) -> None:
    async with control.post("/control/stop-model", b"{}") as answer:
        assert (answer.status, "model" in json.loads(await answer.read())["error"]) == (400, True)


async def test_shutdown_answers_and_tells_the_daemon(control: Front) -> None:
    async with control.post("/control/shutdown", b"") as answer:
        assert answer.status == 200
    assert control.stopped == [True]
    assert control.services.stopping
