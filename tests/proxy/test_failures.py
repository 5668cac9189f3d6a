"""Children that die, stall or talk nonsense, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront

CHAT = ("/api/chat", {"model": "tinychat", "messages": HI})
GENERATE = ("/api/generate", {"model": "tinychat", "prompt": "hi"})
OPENAI = ("/v1/chat/completions", {"model": "tinychat", "messages": HI, "stream": True})
COMPLETIONS = ("/v1/completions", {"model": "tinychat", "prompt": "hi", "stream": True})
RESPONSES = ("/v1/responses", {"model": "tinychat", "input": "hi", "stream": True})
MESSAGES = ("/v1/messages", {"model": "tinychat", "max_tokens": 2000, "messages": HI, "stream": True})
ALL = pytest.mark.parametrize(
    ("path", "body"),
    [CHAT, GENERATE, OPENAI, COMPLETIONS, RESPONSES, MESSAGES],
    ids=["chat", "generate", "openai", "completions", "responses", "messages"],
)
DEADLINE = 10


def last_words(path: str, received: bytes) -> str:
    """The error that ends a broken stream, in the dialect of its path."""
    if path.startswith("/v1/"):
        last = json.loads(received.rstrip().rsplit(b"data: ", 1)[-1])
        assert last.get("type") == {RESPONSES[0]: "response.failed", MESSAGES[0]: "error"}.get(path)
        return str((last.get("response") or last)["error"]["message"])
    return str(json.loads(received.splitlines()[-1])["error"])


@ALL
@pytest.mark.parametrize("code", ["3", "-9"])
async def test_a_child_that_dies_in_mid_stream_ends_it_with_an_error_and_a_cut(
    make_front: MakeFront, path: str, body: dict[str, Any], code: str
) -> None:
    async with make_front(f"exit-at=mid-stream,exit-code={code}") as front:
        message = last_words(path, await front.broken(path, **body))
    assert message.startswith("the engine of tinychat:latest died while answering: ")
    assert f"exit code {code}" in message


async def test_a_client_that_drops_at_a_cut_what_it_has_not_read_still_sees_the_error(
    make_front: MakeFront,
) -> None:
    """aiohttp's does, and it is a little behind here, as any client is."""
    async with make_front("exit-at=mid-stream") as front:
        for _ in range(5):
            lines: list[bytes] = []
            with pytest.raises(aiohttp.ClientPayloadError):
                async with front.post(*CHAT) as answer:
                    async for line in answer.content:
                        lines.append(line)
                        await asyncio.sleep(0.005)
            assert "died while answering" in json.loads(lines[-1])["error"]


@ALL
async def test_after_such_a_death_the_next_request_works(
    make_front: MakeFront, folder: Path, path: str, body: dict[str, Any]
) -> None:
    async with make_front(f"exit-at=mid-stream,once={folder}/once") as front:
        await front.broken(path, **body)
        assert (await front.lines(*CHAT[:1], **CHAT[1]))[-1]["done"] is True
        assert front.children.leases == 0


@ALL
async def test_a_child_that_dies_before_its_first_token_is_replaced_in_silence(
    make_front: MakeFront, folder: Path, path: str, body: dict[str, Any]
) -> None:
    async with make_front(f"exit-at=request,once={folder}/once") as front, front.post(path, body) as answer:
        assert answer.status == 200
        assert b"tiny" in await answer.read()
    assert len(front.children.granted) == 2


@pytest.mark.parametrize(("path", "body"), [RESPONSES, MESSAGES])
async def test_a_child_that_dies_while_it_reads_is_replaced_though_its_stream_has_begun(
    make_front: MakeFront, folder: Path, path: str, body: dict[str, Any]
) -> None:
    async with make_front(f"exit-at=reading,once={folder}/once") as front, front.post(path, body) as answer:
        assert answer.status == 200
        told = await answer.read()
    assert len(front.children.granted) == 2
    begun, ended = (
        (b"response.created", b"response.completed") if path == RESPONSES[0] else (b"_start", b"_stop")
    )
    kind = b"event: message%b\n" if path == MESSAGES[0] else b"event: %b\n"
    assert (told.count(kind % begun), told.count(kind % ended)) == (1, 1)
    numbers = [int(one) for one in re.findall(rb'"sequence_number":(\d+)', told)]
    assert numbers == list(range(len(numbers)))


async def test_a_whole_answer_survives_even_a_death_in_mid_stream(
    make_front: MakeFront, folder: Path
) -> None:
    async with make_front(f"exit-at=mid-stream,once={folder}/once") as front:
        for path, body in (CHAT, OPENAI, COMPLETIONS, RESPONSES, MESSAGES):
            status, whole = await front.whole(path, **{**body, "stream": False})
            assert (status, ANSWER in json.dumps(whole)) == (200, True)


@ALL
async def test_a_child_that_dies_each_time_is_told_with_a_status(
    make_front: MakeFront, path: str, body: dict[str, Any]
) -> None:
    async with make_front("exit-at=request") as front, front.post(path, body) as answer:
        error = json.loads(await answer.read())["error"]
    assert answer.status == 502
    assert "died while answering" in (error if isinstance(error, str) else error["message"])
    assert len(front.children.granted) == 2


@ALL
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cut=3", "lost the connection to the engine of tinychat:latest"),
        ("garbage-frame", "lost the connection to the engine of tinychat:latest"),
        ("error-stream", "Context size has been exceeded."),
    ],
)
async def test_a_stream_that_goes_wrong_says_so_in_its_dialect(
    make_front: MakeFront, path: str, body: dict[str, Any], fault: str, said: str
) -> None:
    async with make_front(fault) as front:
        received = await front.broken(path, **body)
    assert said in last_words(path, received)


@ALL
@pytest.mark.parametrize("fault", ["garbage-json", "no-done"])
async def test_an_answer_without_its_proper_end_is_no_good_end(
    make_front: MakeFront, path: str, body: dict[str, Any], fault: str
) -> None:
    async with make_front(fault) as front:
        assert "the engine" in last_words(path, await front.broken(path, **body))


@ALL
async def test_a_refusal_before_the_first_token_keeps_its_status(
    make_front: MakeFront, path: str, body: dict[str, Any]
) -> None:
    async with make_front("fail=500") as front, front.post(path, body) as answer:
        assert answer.status == 500
        assert b"fake failure" in await answer.read()


async def test_a_load_that_fails_is_told_with_its_cause(make_front: MakeFront) -> None:
    async with make_front("exit-at=load") as front, front.post(*CHAT) as answer:
        assert answer.status == 502
        assert "could not be loaded" in json.loads(await answer.read())["error"]


@ALL
async def test_frames_split_at_any_byte_change_nothing(
    make_front: MakeFront, path: str, body: dict[str, Any]
) -> None:
    async with make_front("split=1") as front, front.post(path, body) as answer:
        received = await answer.read()
    assert answer.status == 200
    assert all(piece in received for piece in (b"Hello", b" from", b" tiny", b" llama"))


async def until_free(front: Front) -> None:
    """Wait until no lease is held and the child has no busy slot."""
    async with asyncio.timeout(DEADLINE):
        while front.children.leases or any(row["is_processing"] for row in await slots(front)):
            await asyncio.sleep(0.01)


async def slots(front: Front) -> list[dict[str, Any]]:
    launched = front.children.running["tinychat:latest"].launched
    _, _, raw = await asyncio.to_thread(launched.request, "GET", "/slots")
    return list(json.loads(raw))


@ALL
async def test_a_client_that_leaves_frees_lease_and_slot(
    front: Front, path: str, body: dict[str, Any]
) -> None:
    endless = {"prompt": ENDLESS, "input": ENDLESS, "messages": [{"role": "user", "content": ENDLESS}]}
    endless = {name: value for name, value in endless.items() if name in body}
    answer = await front.post(path, {**body, **endless}).__aenter__()
    await answer.content.readany()
    assert front.children.leases == 1
    answer.close()
    await until_free(front)


@pytest.mark.parametrize(("path", "fault"), [(CHAT[0], "stall=0"), (OPENAI[0], "delay=1")])
async def test_a_client_that_leaves_while_nothing_is_said_frees_its_lease(
    make_front: MakeFront, path: str, fault: str
) -> None:
    async with make_front(fault) as front, asyncio.TaskGroup() as tasks, asyncio.timeout(DEADLINE):
        waiting = tasks.create_task(front.whole(path, model="tinychat", messages=HI))
        while not front.children.leases:
            await asyncio.sleep(0.005)
        waiting.cancel()
        await until_free(front)
    assert waiting.cancelled(), "no answer came before it left"
