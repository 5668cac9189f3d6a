"""Why a model is placed where it is: the estimate part by part, what the engine says, what was measured, and what there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import DaemonUnreachableError
from llamamgr.daemon.builds import CurrentBuilds
from llamamgr.daemon.client import Control
from llamamgr.host.paths import Paths
from llamamgr.host.settings import load_config
from llamamgr.models.index import Index
from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import Parts
from llamamgr.plan.placement import NOTHING, Known, best_tier, better
from llamamgr.plan.state import Room
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.fitting import Fitting, has_tool
from llamamgr.supervise.gauge import Gauge
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.measured import Measured, Record
from llamamgr.supervise.wishes import Wish, merged, variant_of


class Fit(msgspec.Struct, frozen=True):
    """The whole answer. Sizes are bytes; devices are ``host`` and the engine's own names.

    ``asked`` is the context that was asked for, by the caller or the model's settings (0 = none); no slot gets more than the model
    was trained for.
    ``engine`` is what llama-fit-params says by device ({} = nothing), ``sizes`` and ``foreign`` are of each GPU: all of it, and
    what other programs hold. ``places`` are all candidates, best first; ``place`` is the one that it would get were nothing else
    loaded, None when it fits nowhere.
    """

    model: str
    build: str
    context: int
    asked: int
    parallel: int
    parts: Parts
    engine: dict[str, int]
    has_tool: bool
    measured: Record | None
    budget: dict[str, int]
    sizes: dict[str, int]
    foreign: dict[str, int]
    places: tuple[Placement, ...]
    place: Placement | None


def explain(name: str, *, context: int = 0, parallel: int = 0, instance: str = "") -> Fit:
    """Look at a model as the daemon would that is to start it now. Starts no model.

    ``NotFoundError`` without the model, ``MissingToolError`` without a build.
    """
    paths = Paths.of_environment()
    config = load_config(paths)
    model = Index(paths, config).resolve(name)
    settings = config.settings_of(model.name)
    options = merged(LoadOptions(context=context, instance=instance), settings)
    build = CurrentBuilds(paths, config.instance)(options.instance)
    measured = Measured(paths.state / "measured.json")
    return asyncio.run(_explained(config, model, build, options, parallel, measured, _loaded(paths)))


async def _explained(
    config: Config,
    model: ModelCard,
    build: Build,
    options: LoadOptions,
    parallel: int,
    measured: Measured,
    loaded: Iterable[Mapping[str, Any]],
) -> Fit:
    limits, settings = config.scheduler, config.settings_of(model.name)
    if parallel:
        settings = msgspec.structs.replace(settings, parallel=parallel)
    estimates, gauge = Estimates(config, measured), Gauge()
    await gauge.read((), (), build)
    _own(gauge, loaded)
    budget = gauge.budget(limits, [int(child["pid"]) for child in loaded])
    gpus = {device: budget[device] for device in gauge.usable(build, settings)}
    files = estimates.files(model, options, settings)
    wish = estimates.wish(model, build, options, settings, files, budget[HOST], gpus)
    known = estimates.known(wish)
    said = await Fitting().known(wish, gpus, limits.gpu_reserve, is_idle=not loaded)
    places = estimates.places(wish, better(known, said), gpus, gpus)
    return _fit(wish, said, gauge, budget, measured, places)


def _fit(
    wish: Wish,
    said: Known,
    gauge: Gauge,
    budget: dict[str, int],
    measured: Measured,
    places: tuple[Placement, ...],
) -> Fit:
    room = Room(budget)
    best = best_tier(places, room)[0]
    mine = [device for device in budget if device != HOST]
    return Fit(
        model=wish.model.name,
        build=wish.build.key,
        context=wish.shape.context,
        asked=wish.options.context,
        parallel=wish.shape.parallel,
        parts=wish.shape.parts or Parts(0, 0, 0, 0),
        engine={} if said == NOTHING else said.whole or {HOST: said.alone},
        has_tool=has_tool(wish.build),
        measured=measured.record(wish, variant_of(wish)),
        budget=budget,
        sizes={device: gauge.gpus[device].total for device in mine},
        foreign={device: gauge.foreign.get(device, 0) for device in mine},
        places=places,
        place=None if room.short_of(best) else best,
    )


def _own(gauge: Gauge, loaded: Iterable[Mapping[str, Any]]) -> None:
    """What the daemon's children hold is not foreign: they would make way."""
    for child in loaded:
        for device, size in child["memory_devices"].items():
            gauge.foreign[device] = max(0, gauge.foreign.get(device, 0) - int(size))


def _loaded(paths: Paths) -> list[dict[str, Any]]:
    try:
        return list(Control(paths).call("GET", "/control/ps", timeout=5)["children"])
    except DaemonUnreachableError:
        return []
