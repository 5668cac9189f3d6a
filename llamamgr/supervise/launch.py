"""From a model, a build and a shape to the command line and environment of one llama-server."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.flags import write_argv
from llamamgr.host.files import discard
from llamamgr.host.processes import scrubbed_environment
from llamamgr.plan.memory import Shape
from llamamgr.supervise.lease import Endpoint, LoadOptions

_PING_SECONDS = (
    10  # silence after which the engine sends an SSE comment; also bounds how long a stream holds its exit
)


class Launch(msgspec.Struct, frozen=True):
    """All that is needed to start one child. ``unsaid`` are settings this build has no option for."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    endpoint: Endpoint
    log: str
    unsaid: tuple[str, ...] = ()


def prepare(
    model: ModelCard, build: Build, shape: Shape, options: LoadOptions, *, child: str, run: Path, state: Path
) -> Launch:
    """Choose the endpoint and write the argv that this build accepts (filtered by its own ``--help``)."""
    capability = build.card.capability
    flags = capability.flags if capability else {}
    unix = capability.unix_socket if capability else True
    endpoint = _unix_endpoint(run, child) if unix else _tcp_endpoint()
    argv, unsaid = write_argv(_settings(model, shape, options, endpoint), flags)
    environment = scrubbed_environment(dict(build.card.environment))
    # the engine reads a per-user config.ini before its arguments: give it an empty place to look in
    environment["XDG_CONFIG_HOME"] = str(state / "engine-config")
    if endpoint.api_key:
        environment["LLAMA_API_KEY"] = endpoint.api_key  # never in argv, where every user can read it
    log = state / "logs" / f"{model.name.replace('/', '_').replace(':', '_')}.log"
    return Launch((build.tool("llama-server"), *argv), environment, endpoint, str(log), tuple(unsaid))


def _settings(
    model: ModelCard, shape: Shape, options: LoadOptions, endpoint: Endpoint
) -> dict[str, str | int | bool]:
    embedding = "embedding" in model.capabilities
    settings: dict[str, str | int | bool] = {
        "model": model.path,
        "alias": model.name,
        "host": endpoint.socket or endpoint.host,
        "port": endpoint.port or False,
        "parallel": shape.parallel,
        "context": shape.context * shape.parallel,
        "kv_unified": "off",
        "cache_ram": shape.prompt_cache_mib,
        "ui": "off",
        "offline": True,
        "jinja": "on",
        "metrics": True,
        "slots": True,
        "log_colors": "off",
        "ping_interval": _PING_SECONDS,
        "projector": model.projector,
        "adapters": ",".join(model.adapters),
    }
    if embedding:
        # an input longer than the micro batch is refused by the engine with a 500
        settings |= {"embeddings": True, "batch": shape.context, "micro_batch": shape.context}
    elif options.batch > 0:
        settings |= {"batch": options.batch, "micro_batch": options.batch}
    if options.gpu_layers >= 0:
        settings["gpu_layers"] = str(options.gpu_layers)
    if options.threads > 0:
        settings["threads"] = options.threads
    if options.main_gpu >= 0:
        settings["main_gpu"] = str(options.main_gpu)
    if options.use_mmap is not None:
        settings["load_mode"] = "mmap" if options.use_mmap else "none"
    return settings


def _unix_endpoint(run: Path, child: str) -> Endpoint:
    path = run / f"{child}-{os.getpid()}.sock"
    discard(path)  # a stale file makes the engine's bind fail
    return Endpoint(socket=str(path))


def _tcp_endpoint() -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Endpoint(host="127.0.0.1", port=port, api_key=secrets.token_urlsafe(24))
