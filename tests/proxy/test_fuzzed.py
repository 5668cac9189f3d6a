"""Whatever the front is asked, no answer is a 500, and every refusal has the form of its dialect.

schemathesis asks what the front's own description allows, and what it does not. What it cannot write, broken JSON and broken
text, numbers beyond any type, endless nesting, stands in a table here; each field alone is tried in ``tests/wire``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from tests.proxy.conftest import Front

EXAMPLES = int(os.environ.get("LLAMAMGR_FUZZ_EXAMPLES", "5"))  # of each operation; CI's share
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
CONFIG = Path(__file__).parent / "schemathesis.toml"
NAMES = ["tinychat", "tinyembed", "nobody:7b"]


@pytest.mark.timeout(120 + 30 * EXAMPLES)
async def test_whatever_is_asked_is_answered_as_the_description_says(front: Front, tmp_path: Path) -> None:
    async with front.session.get("/openapi.json") as answer:
        told = await answer.json()
    # models that are there, or half of what is asked would end at the first door
    told["components"]["schemas"]["ModelName"] = {"type": "string", "enum": NAMES}
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(told))
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run", str(described)),
        *(
            f"--url=http://127.0.0.1:{front.port}",
            f"--checks={','.join(CHECKS)}",
            "--phases=examples,coverage,fuzzing",
        ),
        *(
            f"--max-examples={EXAMPLES}",
            "--seed=1",
            "--generation-deterministic",
            "--no-color",
            "--request-timeout=20",
        ),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode == 0, said.decode()


CHAT = {"model": "tinychat", "messages": [{"role": "user", "content": "hi"}]}
DEEP = "[" * 50_000 + "]" * 50_000
WHOLE = (
    "",
    " ",
    "null",
    "[]",
    "[{}]",
    "1",
    '"x"',
    "{",
    '{"model"',
    "\xff\xfe",
    '{"model":"\xff"}',
    DEEP,
    '{"a":' * 50_000,
)
ODD = ("1e400", "NaN", str(2**70), r'"\ud800"', r'"a\u0000b"', '"a\x00b"', "[]", "{}", "[[]]", "1", DEEP)
ASKED = {
    "/api/generate": ({"model": "tinychat", "prompt": "hi"}, "prompt", "options", "format", "images", "context"),
    "/api/chat": (CHAT, "messages", "tools", "options", "format", "think", "keep_alive"),
    "/api/show": ({"model": "tinychat"}, "model", "options"),
    "/api/create": ({"model": "m", "from": "tinychat"}, "model", "from", "files", "template", "parameters", "messages"),
    "/api/copy": ({"source": "tinychat", "destination": "m"}, "source", "destination"),
    "/api/pull": ({"model": "nobody"}, "model", "insecure"),
    "/api/push": ({"model": "nobody"}, "model"),
    "/api/embed": ({"model": "tinyembed", "input": "hi"}, "input", "dimensions", "options"),
    "/api/embeddings": ({"model": "tinyembed", "prompt": "hi"}, "prompt", "options"),
    "/v1/chat/completions": (CHAT, "messages", "tools", "tool_choice", "response_format", "stop", "n"),
    "/v1/completions": ({"model": "tinychat", "prompt": "hi"}, "prompt", "stop", "n", "logprobs", "suffix"),
    "/v1/embeddings": ({"model": "tinyembed", "input": "hi"}, "input", "dimensions", "encoding_format"),
    "/v1/responses": ({"model": "tinychat", "input": "hi"}, "input", "tools", "tool_choice", "text", "reasoning"),
    "/v1/responses/input_tokens": ({"model": "tinychat", "input": "hi"}, "input", "tools", "previous_response_id"),
    "/v1/messages": ({**CHAT, "max_tokens": 4}, "messages", "system", "tools", "tool_choice", "thinking"),
    "/v1/messages/count_tokens": (CHAT, "messages", "system", "tools"),
    "/v1/rerank": ({"model": "tinychat", "query": "a", "documents": ["b"]}, "model", "query", "documents"),
    "/tokenize": ({"model": "tinychat", "content": "hi"}, "model"),
    "/upstream/tinychat/tokenize": ({"content": "hi"},),
}  # fmt: skip


def bodies(path: str) -> Iterator[bytes]:
    good, *fields = ASKED[path]
    yield from (whole.encode("latin-1") for whole in WHOLE)
    yield json.dumps(good).encode() + b"{}"
    yield json.dumps(good)[:-1].encode() + b', "model": 1}'
    for field in fields:
        rest = json.dumps({name: value for name, value in good.items() if name != field})[1:-1]
        yield from (f'{{"{field}": {odd}, {rest}}}'.replace(", }", "}").encode("latin-1") for odd in ODD)


def says_why(path: str, body: bytes) -> bool:
    """Whether an error has the form of its path's dialect."""
    told = json.loads(body)
    if path.startswith("/v1/messages"):
        return told["type"] == "error" and bool(told["error"]["message"]) and bool(told["request_id"])
    if path.startswith("/api/"):
        return isinstance(told["error"], str) and bool(told["error"])
    return bool(told["error"]["message"]) and bool(told["error"]["type"])


@pytest.mark.parametrize("path", ASKED)
async def test_no_body_however_odd_is_answered_by_a_500(front: Front, path: str) -> None:
    wrong = []
    for body in bodies(path):
        async with front.post(path, body) as answer:
            told = await answer.read()
            if answer.status not in (200, 501) and not (400 <= answer.status < 500 and says_why(path, told)):
                wrong.append((body[:100], answer.status, told[:200]))
    assert wrong == []


@pytest.mark.parametrize(
    "name", ["%00", "a%00b", "%ff", "%ed%a0%80", "..%2f..", "%2e%2e", "a" * 4000, "%20", "%25"]
)
@pytest.mark.parametrize(
    "path", ["/v1/models/", "/v1/responses/", "/upstream/", "/api/blobs/", "/props?model="]
)
async def test_no_name_however_odd_is_answered_by_a_500(front: Front, path: str, name: str) -> None:
    async with front.session.get(URL(f"http://127.0.0.1:{front.port}{path}{name}", encoded=True)) as answer:
        assert 400 <= answer.status < 500
