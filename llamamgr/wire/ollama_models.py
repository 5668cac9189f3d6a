"""Ollama's requests about models: create, copy, delete, pull, push (source: Ollama api/types.go, server/create.go, routes.go)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from llamamgr.core.errors import UsageError
from llamamgr.core.modelfile import checked_parameters, parse_modelfile
from llamamgr.wire import golang, gotemplate
from llamamgr.wire.errors import DialectError


class CreateRequest(msgspec.Struct, frozen=True):
    """``POST /api/create``. ``files`` and ``adapters`` are (name, digest); None leaves what the base has."""

    model: str
    base: str = ""
    files: tuple[tuple[str, str], ...] | None = None
    adapters: tuple[tuple[str, str], ...] = ()
    template: str | None = None
    system: str | None = None
    settings: dict[str, Any] = {}
    messages: tuple[tuple[str, str], ...] | None = None
    licenses: tuple[str, ...] = ()
    quantize: str = ""
    stream: bool = True


class CopyRequest(msgspec.Struct, frozen=True):
    source: str
    destination: str


class TransferRequest(msgspec.Struct, frozen=True):
    """``POST /api/pull`` and ``/api/push``."""

    model: str
    insecure: bool = False
    stream: bool = True


class _WireMessage(msgspec.Struct):
    role: str | None = None
    content: str | None = None


class WireCreate(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    stream: bool | None = None
    quantize: str | None = None
    quantization: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    draft_quantize: str | None = None
    template: str | None = None
    system: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: list[_WireMessage] | None = None
    modelfile: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    info: dict[str, Any] | None = None
    remote_host: str | None = None


class WireCopy(msgspec.Struct):
    source: str | None = None
    destination: str | None = None


class WireTransfer(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    insecure: bool | None = None
    stream: bool | None = None


_GO_TYPES = {
    "files": "map[string]string",
    "draft_files": "map[string]string",
    "adapters": "map[string]string",
    "parameters": "map[string]interface {}",
    "info": "map[string]interface {}",
    "messages": "[]api.Message",
    "messages[]": "api.Alias",
}


def parse_create(body: bytes) -> CreateRequest:
    """``DialectError`` or ``UsageError`` (both 400) in Ollama's words. Whether the name is one is for the caller to see."""
    wire = golang.decode(body, WireCreate, "CreateRequest", _GO_TYPES)
    request = CreateRequest(
        model=wire.model or wire.name or "",
        base=wire.from_ or "",
        files=None if wire.files is None else tuple(wire.files.items()),
        adapters=tuple((wire.adapters or {}).items()),
        template=wire.template or None,
        system=wire.system or None,
        settings=checked_parameters(wire.parameters or {}),
        messages=_messages(wire.messages),
        licenses=tuple([wire.license] if isinstance(wire.license, str) else wire.license or ()),
        quantize=wire.quantize or wire.quantization or "",
        stream=wire.stream is not False,
    )
    if wire.modelfile:
        request = _with_modelfile(request, wire.modelfile)
    check_template(request.template)
    drafts = tuple((wire.draft_files or {}).items())
    for files in (request.files or (), drafts):
        _check_files(files)
    if wire.draft_quantize and not drafts:
        raise DialectError(400, "--draft-quantize requires a DRAFT model")
    _check_files(request.adapters)
    if drafts:
        raise DialectError(
            400, "a model has no draft of its own here: name one by draft_model among its settings"
        )
    return request


def _check_files(files: Iterable[tuple[str, str]]) -> None:
    for path, digest in files:
        if not path or any(part in ("", ".", "..") for part in path.split("/")):
            raise DialectError(400, "file path must be relative")
        if not digest:
            raise DialectError(400, "invalid digest format")


def check_template(template: str | None) -> None:
    """``DialectError`` when a template cannot be rendered, naming why."""
    if template:
        try:
            gotemplate.compiled(template)
        except gotemplate.TemplateError as error:
            raise DialectError(400, f"template error: {error}") from None


def require_origin(request: CreateRequest) -> None:
    """``DialectError`` when a request says of what to make the model in no way."""
    if request.base:
        return
    if request.files is None:
        raise DialectError(400, "neither 'from' or 'files' was specified")
    if not request.files:
        raise DialectError(400, "unknown type")


def parse_copy(body: bytes) -> CopyRequest:
    wire = golang.decode(body, WireCopy, "CopyRequest", {})
    return CopyRequest(wire.source or "", wire.destination or "")


def parse_delete(body: bytes) -> str:
    """The name of the model to delete."""
    wire = golang.decode(body, WireTransfer, "DeleteRequest", {})
    model = wire.model or wire.name or ""
    if not model.strip():
        raise DialectError(400, "model is required")
    return model


def parse_transfer(body: bytes, struct: str) -> TransferRequest:
    """Of a pull (``PullRequest``) or a push (``PushRequest``)."""
    wire = golang.decode(body, WireTransfer, struct, {})
    return TransferRequest(wire.model or wire.name or "", bool(wire.insecure), wire.stream is not False)


def _messages(wire: list[_WireMessage] | None) -> tuple[tuple[str, str], ...] | None:
    return tuple(((one.role or "").lower(), one.content or "") for one in wire) if wire else None


def _with_modelfile(request: CreateRequest, text: str) -> CreateRequest:
    """What clients before 0.5.5 send: a Modelfile's text, blobs by ``@sha256:…``."""
    said = parse_modelfile(text)
    files = tuple((base[1:], base[1:]) for base in said.bases if base.startswith("@"))
    names = [base for base in said.bases if not base.startswith("@")]
    adapters = tuple((adapter[1:], adapter[1:]) for adapter in said.adapters if adapter.startswith("@"))
    if len(names) > 1 or len(adapters) < len(said.adapters) or (names and files):
        raise UsageError("FROM and ADAPTER must each be one model, or blobs", "send files as blobs first")
    return msgspec.structs.replace(
        request,
        base=names[0] if names else "",
        files=files or None,
        adapters=adapters,
        template=said.template,
        system=said.system,
        settings=said.parameters,
        messages=said.messages or None,
        licenses=said.licenses,
    )
