"""From a model, a build and a shape to the command line and environment of one llama-server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llamamgr.core.flags import write_argv
from llamamgr.host.files import discard
from llamamgr.host.gpus import Gpu
from llamamgr.host.ports import free_port
from llamamgr.host.processes import scrubbed_environment
from llamamgr.plan.events import Placement
from llamamgr.plan.memory import MIB
from llamamgr.plan.placement import shares
from llamamgr.supervise.devices import chooses, confined
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.wishes import Wish, flag_arguments

Settings = dict[str, str | int | bool]

# silence after which the engine sends an SSE comment; also bounds how long a stream holds its exit
_PING_SECONDS = 10
_LOOPBACK = "127.0.0.1"
NO_GPUS: Mapping[str, Gpu] = {}


class Launch(msgspec.Struct, frozen=True):
    """All that is needed to start one child. ``slots`` is the folder
    its slots are saved in ("" = they cannot be), ``unsaid`` are settings this build has no option for."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    endpoint: Endpoint
    log: str
    slots: str
    unsaid: tuple[str, ...]


def prepare(
    wish: Wish,
    placement: Placement,
    *,
    child: str,
    run: Path,
    state: Path,
    slots: Path | None = None,
    gpus: Mapping[str, Gpu] = NO_GPUS,
    gpu_reserve: int = 0,
) -> Launch:
    """Choose the endpoint and write the argv that this build accepts (filtered by its own ``--help``).

    ``gpus`` are those the build can use, ``gpu_reserve`` the bytes to be left free on each. ``ConfigError`` for a flag of the
    model's settings that the build does not know.
    """
    model, build = wish.model, wish.build
    capability = build.card.capability
    flags = capability.flags if capability else {}
    unix = capability.unix_socket if capability else True
    endpoint = _unix_endpoint(run, child) if unix else _tcp_endpoint()
    can_keep_slots = slots is not None and "--slot-save-path" in flags
    confining, device = confined(placement, gpus, has_option="--device" in flags)
    if chooses(wish.settings):
        confining, device = {}, ""
    settings = _settings(wish, endpoint) | spread(placement, gpu_reserve) | {"device": device}
    settings |= {"slot_save_path": f"{slots}/"} if can_keep_slots else {}
    argv, unsaid = write_argv(settings, flags)
    argv += flag_arguments(wish.settings, build)
    log = state / "logs" / f"{model.name.replace('/', '_').replace(':', '_')}.log"
    return Launch(
        (build.tool("llama-server"), *argv),
        _environment(wish, confining, endpoint.api_key, state),
        endpoint,
        str(log),
        str(slots) if can_keep_slots else "",
        tuple(unsaid),
    )


def _environment(wish: Wish, confining: Mapping[str, str], api_key: str, state: Path) -> dict[str, str]:
    environment = scrubbed_environment(dict(wish.build.card.environment))
    environment |= {**confining, **wish.settings.env}
    # the engine reads a per-user config.ini before its arguments: give it an empty place to look in
    environment["XDG_CONFIG_HOME"] = str(state / "engine-config")
    if api_key:
        environment["LLAMA_API_KEY"] = api_key  # never in argv, where every user can read it
    return environment


def _settings(wish: Wish, endpoint: Endpoint) -> Settings:
    model, shape = wish.model, wish.shape
    return load_settings(wish) | {
        "alias": model.name,
        "host": endpoint.socket or endpoint.host,
        "port": endpoint.port or False,
        "cache_ram": shape.prompt_cache_mib,
        "ui": "off",
        "offline": True,
        "jinja": "on",
        "metrics": True,
        "slots": True,
        "log_colors": "off",
        "ping_interval": _PING_SECONDS,
        "projector": wish.settings.projector or model.projector,
        "draft_model": wish.settings.draft_model,
    }


def load_settings(wish: Wish) -> Settings:
    """What decides how much memory the model takes."""
    model, shape, options = wish.model, wish.shape, wish.options
    settings: Settings = {
        "model": model.path,
        "parallel": shape.parallel,
        "context": shape.context * shape.parallel,
        "kv_unified": "off",
        "adapters": ",".join(wish.settings.adapters or model.adapters),
    }
    reads_whole = {"embedding": "embeddings", "rerank": "rerank"}
    kind = next((word for word in reads_whole if word in model.capabilities), "")
    if kind:
        # an input longer than the micro batch is refused by the engine with a 500
        settings |= {reads_whole[kind]: True, "batch": shape.context, "micro_batch": shape.context}
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


def spread(placement: Placement, gpu_reserve: int) -> Settings:
    """How the model is spread over its GPUs. Where the engine has the last word, it leaves ``gpu_reserve`` free on each."""
    if placement.offload is not None:
        layers, split, overrides = msgspec.structs.astuple(placement.offload)
        return {"gpu_layers": str(layers), "tensor_split": split, "override_tensor": overrides}
    if not placement.devices:
        return {}
    return {"tensor_split": shares(placement), "fit_target": max(1, gpu_reserve // MIB)}


def _unix_endpoint(run: Path, child: str) -> Endpoint:
    path = run / f"{child}-{os.getpid()}.sock"
    discard(path)  # a stale file makes the engine's bind fail
    return Endpoint(socket=str(path))


def _tcp_endpoint() -> Endpoint:
    return Endpoint(host=_LOOPBACK, port=free_port(_LOOPBACK), api_key=secrets.token_urlsafe(24))
