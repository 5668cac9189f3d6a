"""What the build's own ``llama-fit-params`` says a child would take, asked where the estimate leaves open what fits.

It loads the model without its weights, so its figures are the engine's own. One answer is kept for each child and free memory to
the GiB; a tool that fails or is slow is asked no more for that child, and the estimate stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping

from llamamgr.core.cards import Build
from llamamgr.core.errors import LlamamgrError
from llamamgr.core.fit_params import HOST as TOOLS_HOST
from llamamgr.core.fit_params import Options, parse_devices, parse_options
from llamamgr.core.flags import parse_help, write_argv
from llamamgr.host.processes import capture, scrubbed_environment
from llamamgr.plan.events import HOST, Offload, Placement
from llamamgr.plan.memory import MIB
from llamamgr.plan.placement import HOST_SIDE, NOTHING, PER_PROCESS, Known
from llamamgr.supervise.launch import Settings, load_settings
from llamamgr.supervise.threads import in_thread
from llamamgr.supervise.wishes import Wish, flag_arguments, variant_of

log = logging.getLogger(__name__)

TOOL = "llama-fit-params"
_DEADLINE = 10.0
_KEPT = 256
_GIB = 1024 * MIB
_ALONE_SIDE = 32 * MIB  # of a process without GPUs, besides its model


class Fitting:
    """Asks the tool in a thread and remembers what it said."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[object, ...], Known] = OrderedDict()
        self._flags: dict[str, dict[str, str]] = {}
        self._asking: dict[tuple[object, ...], asyncio.Lock] = {}

    async def known(
        self, wish: Wish, gpus: Mapping[str, int], reserve: int, *, is_idle: bool = True
    ) -> Known:
        """Figures for ``wish``; ``NOTHING`` when the build has no such tool or it does not answer.

        ``gpus`` are the bytes it may take on each GPU, ``reserve`` is left free there; {} keeps it off them. Only while none of
        our children is on those GPUs (``is_idle``) does the tool see what there will be to spread a big model over.
        """
        if not has_tool(wish.build):
            return NOTHING
        classes = tuple((name, size // _GIB) for name, size in sorted(gpus.items()))
        key = (
            wish.model.digest,
            wish.build.key,
            variant_of(wish),
            wish.shape.context,
            wish.shape.parallel,
            classes,
            is_idle,
        )
        async with self._asking.setdefault(key, asyncio.Lock()):
            if key not in self._answers:
                self._answers[key] = await in_thread(self._ask, wish, dict(gpus), reserve, is_idle)
            self._answers.move_to_end(key)
            answer = self._answers[key]
        self._forget()
        return answer

    def _forget(self) -> None:
        """The oldest answers, and the locks that nobody holds."""
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        self._asking = {key: lock for key, lock in self._asking.items() if lock.locked()}

    def _ask(self, wish: Wish, gpus: dict[str, int], reserve: int, is_idle: bool) -> Known:
        try:
            return self._known(wish, gpus, reserve, is_idle)
        except LlamamgrError as error:
            log.warning("%s of build %s: %s; the estimate stands", TOOL, wish.build.key, error.what)
            return NOTHING

    def _known(self, wish: Wish, gpus: dict[str, int], reserve: int, is_idle: bool) -> Known:
        base: Settings = load_settings(wish)
        if not gpus:
            alone = self._projected(wish, base | {"device": "none"})
            return Known(alone=alone[HOST] if alone else 0)
        base |= {"device": ",".join(gpus)}
        whole = self._projected(wish, base)
        if not whole or not is_idle or _fits(whole, gpus):
            return Known(whole)
        return Known(whole, partly=self._partly(wish, base, tuple(gpus), reserve))

    def _partly(self, wish: Wish, base: Settings, devices: tuple[str, ...], reserve: int) -> Placement | None:
        """The tool's own way to spread a model that is too big, with the memory that it would take so."""
        said = self._run(wish, base | {"fit_target": max(1, reserve // MIB)})
        options = parse_options(said)
        if options is None:
            return None
        chosen: Settings = {"gpu_layers": str(options.layers), "override_tensor": options.overrides}
        need = self._projected(wish, base | chosen | {"tensor_split": options.split})
        return _placement(need, devices, options, wish) if need else None

    def _projected(self, wish: Wish, settings: Settings) -> dict[str, int]:
        """Bytes by device in our names; {} when the tool does not say. It knows nothing of projectors and draft models."""
        found = parse_devices(self._run(wish, settings | {"fit_print": "on"}))
        if not found:
            return {}
        need = {
            name: one.total + PER_PROCESS for name, one in found.items() if name != TOOLS_HOST and one.total
        }
        need[HOST] = found[TOOLS_HOST].total + (HOST_SIDE if need else _ALONE_SIDE)
        parts = wish.shape.parts
        need[next(iter(need))] += parts.projector + parts.draft if parts else 0
        return need

    def _run(self, wish: Wish, settings: Settings) -> str:
        build = wish.build
        environment = scrubbed_environment(dict(build.card.environment)) | wish.settings.env
        environment["GGML_NO_BACKTRACE"] = "1"  # a debugger on a model that it cannot load would take seconds
        if build.key not in self._flags:
            asked = capture([build.tool(TOOL), "--help"], timeout=_DEADLINE, env=environment)
            self._flags[build.key] = parse_help(asked.output)
        flags = self._flags[build.key]
        argv, _ = write_argv(settings, flags)
        argv += flag_arguments(wish.settings, build, only=flags)
        outcome = capture([build.tool(TOOL), *argv], timeout=_DEADLINE, env=environment)
        if not outcome.succeeded:
            log.info("%s ended with status %d: %s", TOOL, outcome.code, outcome.output[-400:].strip())
            return ""
        return outcome.output


def has_tool(build: Build) -> bool:
    capability = build.card.capability
    return capability is not None and TOOL in capability.tools


def _fits(whole: Mapping[str, int], gpus: Mapping[str, int]) -> bool:
    """On one GPU or on all of them: what the plan can arrange by itself."""
    together = sum(size for device, size in whole.items() if device != HOST)
    return together <= sum(gpus.values()) or together <= max(gpus.values())


def _placement(need: Mapping[str, int], devices: tuple[str, ...], options: Options, wish: Wish) -> Placement:
    cache = wish.shape.prompt_cache_mib * MIB
    offload = Offload(options.layers, options.split, options.overrides)
    return Placement({**need, HOST: need[HOST] + cache}, devices, "partly", offload)
