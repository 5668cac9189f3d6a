"""An OpenAPI 3.1 document, built from a table of operations.

A request body's schema is that of the very type it is decoded into, so the two cannot drift; what the type cannot tell (what
is required, limits, the forms of a raw value) stands beside it in ``openapi_bodies``. Facts: the OpenAPI Specification 3.1.1,
JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import inspect as info

Schema: TypeAlias = Mapping[str, Any]
Dialect: TypeAlias = Literal["ollama", "openai", "anthropic", "llama.cpp"]

_COMPONENTS = "#/components/schemas/"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


class Body(msgspec.Struct, frozen=True):
    """A request's JSON: ``kind`` is what it is decoded into.

    ``fields`` say more of fields, by name, or by ``Inner.name`` for a field of a type inside; ``passed`` are fields that go on to
    the engine unread.
    """

    name: str
    kind: type[msgspec.Struct]
    required: tuple[str, ...] = ()
    fields: Mapping[str, Schema] = {}
    passed: Mapping[str, Schema] = {}
    example: Mapping[str, Any] = {}


class Content(msgspec.Struct, frozen=True):
    """A body in one media type. A schema of None says nothing of it."""

    media: str
    schema: Schema | None = None


class Answer(msgspec.Struct, frozen=True):
    """An answer that is no error; without ``contents`` it has no body."""

    status: int
    told: str
    contents: tuple[Content, ...] = ()


class Parameter(msgspec.Struct, frozen=True):
    """A parameter in ``place``: path, query or header; a text unless ``schema`` says another."""

    place: str
    name: str
    told: str
    schema: Schema | None = None


class Operation(msgspec.Struct, frozen=True):
    """One route as clients see it. ``errors`` are the statuses whose body is the dialect's error.

    ``upload`` is a body that is no JSON object of ours. ``bare`` are errors without a body. ``failure`` is the component of its
    errors where it is not the dialect's; ``other`` stands for every status that is not named.
    """

    method: str
    path: str
    told: str
    dialect: Dialect
    answers: tuple[Answer, ...]
    errors: tuple[int, ...] = ()
    body: Body | None = None
    upload: Content | None = None
    parameters: tuple[Parameter, ...] = ()
    bare: tuple[int, ...] = ()
    failure: str = ""
    other: Answer | None = None


def ref(name: str) -> Schema:
    """The schema component ``name``."""
    return {"$ref": _COMPONENTS + name}


def document(
    operations: Iterable[Operation], components: Mapping[str, Schema], version: str
) -> dict[str, Any]:
    """The whole document; ``components`` are the schemas that operations and bodies refer to by ``ref``."""
    schemas: dict[str, Any] = dict(components)
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
        if operation.body is not None:
            schemas |= _body_schemas(operation.body)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "llamamgr",
            "version": version,
            "summary": "The APIs of Ollama, OpenAI, Anthropic and llama.cpp for the models of this machine",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # a key is asked for only where the server has some
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": operation.told,
        "operationId": re.sub(r"\W+", "_", f"{operation.method} {operation.path}").strip("_"),
        "tags": [operation.dialect],
        "responses": _responses(operation),
    }
    parameters = [*_path_parameters(operation), *operation.parameters]
    if parameters:
        told["parameters"] = [_parameter(one) for one in parameters]
    if operation.body is not None:
        content: dict[str, Any] = {"schema": ref(operation.body.name)}
        if operation.body.example:
            content["examples"] = {"least": {"value": operation.body.example}}
        # the type of a body is not looked at: clients of Ollama send none, curl that of a form
        told["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif operation.upload is not None:
        told["requestBody"] = {"content": {operation.upload.media: _media(operation.upload)}}
    return told


def _path_parameters(operation: Operation) -> list[Parameter]:
    said = {one.name for one in operation.parameters if one.place == "path"}
    names = re.findall(r"{(\w+)}", operation.path)
    return [Parameter("path", name, "") for name in names if name not in said]


def _parameter(one: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "in": one.place, "schema": one.schema or {"type": "string"}}
    if one.place == "path":
        told["required"] = True
    return {**told, "description": one.told} if one.told else told


def _responses(operation: Operation) -> dict[str, Any]:
    found = {str(answer.status): _response(answer.told, answer.contents) for answer in operation.answers}
    error = (Content("application/json", ref(operation.failure or _ERRORS[operation.dialect])),)
    for status in sorted(operation.errors):
        found[str(status)] = _response(HTTPStatus(status).phrase, error)
    for status in operation.bare:
        found[str(status)] = _response(HTTPStatus(status).phrase, ())
    if operation.other is not None:
        found["default"] = _response(operation.other.told, operation.other.contents)
    return found


_ERRORS: Mapping[Dialect, str] = {
    "ollama": "OllamaError",
    "openai": "OpenAIError",
    "anthropic": "AnthropicError",
    "llama.cpp": "EngineError",
}


def _response(told: str, contents: tuple[Content, ...]) -> dict[str, Any]:
    content = {"content": {one.media: _media(one) for one in contents}} if contents else {}
    return {"description": told, **content}


def _media(content: Content) -> dict[str, Any]:
    return {} if content.schema is None else {"schema": content.schema}


def _body_schemas(body: Body) -> dict[str, Any]:
    """The schemas of a body and of the types inside it, which get its name before theirs."""
    schemas: dict[str, Any] = {}
    _add(schemas, body.name, info.type_info(body.kind))
    for where, more in (*body.fields.items(), *body.passed.items()):
        inner, _, field = where.rpartition(".")
        properties = schemas[f"{body.name}.{inner}" if inner else body.name]["properties"]
        if (field in properties) is (where in body.passed):
            raise KeyError(f"{where} of {body.name} is {'read' if where in body.passed else 'not read'}")
        properties[field] = more
    top = schemas[body.name]
    if body.required:
        top["required"] = list(body.required)
        for name in body.required:
            top["properties"][name] = _present(top["properties"][name])
    return schemas


def _add(schemas: dict[str, Any], name: str, kind: info.Type) -> None:
    """``kind``, a type with fields, as the component ``name``, and those inside it; every field of them may be left out.

    Not by msgspec's own schemas: those cannot tell of a raw value with a default.
    """
    if not isinstance(kind, info.StructType):
        raise TypeError(f"{kind} has no fields")
    properties: dict[str, Any] = {}
    schemas[name] = {"type": "object", "properties": properties}
    for field in kind.fields:
        properties[field.encode_name] = _schema(schemas, name.partition(".")[0], field.type)


def _schema(schemas: dict[str, Any], body: str, kind: info.Type) -> dict[str, Any]:
    match kind:
        case info.UnionType(types):
            return _any([_schema(schemas, body, one) for one in types])
        case info.ListType(item_type=item) | info.VarTupleType(item_type=item):
            return {"type": "array", "items": _schema(schemas, body, item)}
        case info.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _schema(schemas, body, value)}
        case info.StructType(cls=cls):
            name = f"{body}.{cls.__name__.lstrip('_').removeprefix('Wire')}"
            if name not in schemas:
                _add(schemas, name, kind)
            return dict(ref(name))
        case _:
            return {"type": _PLAIN[type(kind)]} if type(kind) in _PLAIN else {}


_PLAIN: Mapping[type[info.Type], str] = {
    info.StrType: "string",
    info.IntType: "integer",
    info.FloatType: "number",
    info.BoolType: "boolean",
    info.NoneType: "null",
}


def _any(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    if all(schema.keys() == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _present(schema: Schema) -> Schema:
    """``schema`` without the null that stands for a field that is not there."""
    told = dict(schema)
    if isinstance(told.get("type"), list):
        types = [one for one in told["type"] if one != "null"]
        told["type"] = types if len(types) > 1 else types[0]
    if "anyOf" in told:
        told["anyOf"] = [one for one in told["anyOf"] if one != {"type": "null"}]
    return told
