"""``/openapi.json`` tells of the routes that there are, and of no others."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import schemathesis
from aiohttp import web

from llamamgr.proxy.app import add_public_routes
from llamamgr.proxy.operations import OPERATIONS, SCHEMAS
from llamamgr.wire.openapi import METHODS, Body, document
from tests.proxy.conftest import Front

DOCUMENT = document(OPERATIONS, SCHEMAS, "1.2.3")


def routes() -> set[tuple[str, str]]:
    """Method and path of every route; one for any method counts as all of those that a document can tell."""
    app = web.Application()
    add_public_routes(app)
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        path = re.sub(r":[^}]+}", "}", route.resource.canonical)
        methods = METHODS if route.method == "*" else (route.method.lower(),)
        found |= {(method, path) for method in methods}
    return found


def test_every_route_is_described_and_nothing_else_is() -> None:
    described = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(described) == len(set(described))
    assert set(described) == routes()


def test_the_description_is_a_sound_document() -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.validate()
    read = {(found.ok().method, found.ok().path) for found in schema.get_all_operations()}
    assert read == {(operation.method, operation.path) for operation in OPERATIONS}


def test_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)
    unused = [name for name in DOCUMENT["components"]["schemas"] if f'schemas/{name}"' not in text]
    assert unused == []


def test_a_field_that_a_request_does_not_have_cannot_be_described() -> None:
    [operation] = [one for one in OPERATIONS if one.path == "/api/chat"]
    assert isinstance(operation.body, Body)
    wrong = Body("Wrong", operation.body.kind, fields={"nonsense": {}})
    with pytest.raises(KeyError, match="nonsense of Wrong is not read"):
        document([type(operation)("post", "/", "", "ollama", (), body=wrong)], {}, "1")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/v1/chat/completions", "/v1/responses"])
def test_a_stream_is_described_beside_the_whole_answer(path: str) -> None:
    answer = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]
    lines = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
    assert answer.keys() == {"application/json", lines}


async def test_the_document_is_served_with_the_servers_version(front: Front) -> None:
    async with front.session.get("/openapi.json") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        told: dict[str, Any] = await answer.json()
    assert told == json.loads(json.dumps(DOCUMENT))
    assert told["info"]["version"] == "1.2.3"
