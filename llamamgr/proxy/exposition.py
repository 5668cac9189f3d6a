"""``/metrics``: what llamamgr counts, in Prometheus' text format, or OpenMetrics' for a scraper that asks for it.

prometheus-client writes the format; it is imported by the first scrape, since it costs 15 ms and no request needs it.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, cast

from aiohttp import web

from llamamgr.core.histogram import Histogram
from llamamgr.host import memory as host_memory
from llamamgr.proxy import engine_routes
from llamamgr.proxy.metrics import NO_ROUTE, Metrics, RouteMetrics
from llamamgr.proxy.replies import dialect_of_path
from llamamgr.proxy.services import Services, services_of
from llamamgr.supervise.lease import ChildStatus
from llamamgr.supervise.tally import ModelTally, Tally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

_OWN = (NO_ROUTE, "/health", "/metrics", "/api/system/status")
_STATES = ("loading", "ready", "lost", "stopping")


async def metrics(request: web.Request) -> web.StreamResponse:
    """Our own numbers, of the models that the visitor may know of; with ``?model=`` those of that model's engine."""
    if "model" in request.query:
        return await engine_routes.engine(request)
    services = services_of(request)
    body, content_type = await asyncio.to_thread(
        exposition,
        services,
        [c for c in services.children.status() if services.shows(c.model.name)],
        request.headers.get("Accept", ""),
    )
    return web.Response(body=body, headers={"Content-Type": content_type})


def exposition(services: Services, children: Iterable[ChildStatus], accept: str) -> tuple[bytes, str]:
    """The text and its content type; ``accept`` is the scraper's header."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    found = _Found(
        [
            *_of_itself(services),
            *_front(services.metrics),
            *_models(services.tally, services.shows),
            *_children([*children]),
        ]
    )
    return encode(cast("CollectorRegistry", found)), content_type


class _Found:
    """What the encoder takes for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _of_itself(services: Services) -> Iterator[Metric]:
    yield _gauge("build_info", "Always 1; the version of llamamgr.", ("version",), [((services.version,), 1)])
    yield _gauge(
        "start_time_seconds", "When the daemon began, since the epoch.", (), [((), services.started)]
    )
    memory = host_memory.resident(os.getpid())
    yield _gauge(
        "resident_memory_bytes", "Memory of the daemon itself, without its engines.", (), [((), memory)]
    )
    lag = [((str(share),), services.lag(share)) for share in (0.5, 0.99)]
    yield _gauge(
        "event_loop_lag_seconds", "How late the event loop woke, of the last two minutes.", ("quantile",), lag
    )


def _front(metrics: Metrics) -> Iterator[Metric]:
    routes = [((_spoken(path), path), one) for path, one in list(metrics.routes.items())]
    by_route = ("dialect", "route")
    yield _counter(
        "requests",
        "Requests that ended, by the status of their answer; 499: the client left first.",
        (*by_route, "status"),
        [((*at, str(status)), count) for at, one in routes for status, count in list(one.statuses.items())],
    )
    yield _gauge(
        "requests_in_flight",
        "Requests being answered now.",
        by_route,
        [(at, one.in_flight) for at, one in routes],
    )
    yield _histogram(
        "time_to_first_byte_seconds",
        "From the head of a request to the head of its answer.",
        by_route,
        [(at, one.first_byte) for at, one in routes if _answered(one)],
    )
    yield _counter(
        "broken_answers", "Streams that failed after their first byte.", (), [((), metrics.broken)]
    )
    yield _gauge("connections", "Open connections of clients.", (), [((), metrics.connections)])
    yield _counter(
        "dropped_connections",
        "Connections that were closed on a client, by reason.",
        ("reason",),
        [((reason,), count) for reason, count in list(metrics.dropped.items())],
    )


def _answered(route: RouteMetrics) -> bool:
    return any(route.first_byte.counts)


def _spoken(path: str) -> str:
    """The dialect of a route; our own pages and the command line's are none of the clients'."""
    return "llamamgr" if path in _OWN or path.startswith("/control/") else dialect_of_path(path)


_COUNTED: tuple[tuple[str, str, Callable[[ModelTally], float]], ...] = (
    ("prompt_tokens", "Tokens of prompts, cached ones included.", lambda one: one.tokens.prompt),
    ("prompt_tokens_cached", "Tokens of prompts that were in the cache.", lambda one: one.tokens.cached),
    ("generated_tokens", "Tokens of answers that came to their end.", lambda one: one.tokens.generated),
    ("engine_starts", "Engines started.", lambda one: one.starts),
    ("engine_restarts", "Engines started after one of that model failed.", lambda one: one.restarts),
)


def _models(tally: Tally, shows: Callable[[str], bool]) -> Iterator[Metric]:
    yield _gauge("queue_length", "Requests that wait for an engine now.", (), [((), tally.waiting)])
    yield _counter(
        "queue_refusals",
        "Requests that got no engine, by reason.",
        ("reason",),
        [((why,), count) for why, count in list(tally.refusals.items())],
    )
    models = [(name, one) for name, one in list(tally.models.items()) if shows(name)]
    for counted, told, value in _COUNTED:
        yield _counter(counted, told, ("model",), [((name,), value(one)) for name, one in models])
    yield _histogram(
        "queue_wait_seconds",
        "From asking for an engine to having it, loads included.",
        ("model",),
        [((name,), one.wait_seconds) for name, one in models],
    )
    yield _histogram(
        "load_seconds",
        "From start to ready, of loads that succeeded.",
        ("model",),
        [((name,), one.load_seconds) for name, one in models],
    )
    yield _counter(
        "engine_failures",
        "Engines that ended unasked, while loading or running, by cause.",
        ("model", "phase", "cause"),
        [((name, *how), count) for name, one in models for how, count in list(one.failures.items())],
    )
    yield _counter(
        "unloads",
        "Engines that were stopped, by reason; evicted: for another model.",
        ("model", "reason"),
        [((name, why), count) for name, one in models for why, count in list(one.unloads.items())],
    )


def _children(children: list[ChildStatus]) -> Iterator[Metric]:
    counts = [((state,), sum(child.state == state for child in children)) for state in _STATES]
    yield _gauge("engines", "Engines by state.", ("state",), counts)
    yield _gauge(
        "engine_info",
        "Always 1; an engine there is now.",
        ("engine", "model", "build", "state"),
        [((child.id, child.model.name, child.build, child.state), 1) for child in children],
    )
    names = [((child.id, child.model.name), child) for child in children]
    by_engine = ("engine", "model")
    yield _gauge(
        "engine_slots", "Requests an engine takes at once.", by_engine, [(at, c.slots) for at, c in names]
    )
    yield _gauge(
        "engine_slots_busy", "Requests an engine has now.", by_engine, [(at, c.busy) for at, c in names]
    )
    yield _gauge(
        "engine_memory_bytes",
        "Memory of an engine in the machine's main memory, as measured.",
        by_engine,
        [(at, child.memory) for at, child in names],
    )
    yield _gauge(
        "engine_planned_bytes",
        "Memory that an engine was given room for, by device.",
        (*by_engine, "device"),
        [((*at, device), size) for at, child in names for device, size in child.planned.items()],
    )


# -- families

_Labels = tuple[str, ...]


def _gauge(name: str, help: str, labels: _Labels, values: Iterable[tuple[_Labels, float]]) -> Metric:  # noqa: A002
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(f"llamamgr_{name}", help, labels=labels)
    for at, value in values:
        family.add_metric(at, value)
    return family


def _counter(name: str, help: str, labels: _Labels, values: Iterable[tuple[_Labels, float]]) -> Metric:  # noqa: A002
    """Its samples end in ``_total``."""
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"llamamgr_{name}", help, labels=labels)
    for at, value in values:
        family.add_metric(at, value)
    return family


def _histogram(
    name: str,
    help: str,  # noqa: A002 - the format's word
    labels: _Labels,
    values: Iterable[tuple[_Labels, Histogram]],
) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    family = HistogramMetricFamily(f"llamamgr_{name}", help, labels=labels)
    for at, value in values:
        buckets = [(_bound(end), count) for end, count in value.cumulative()]
        family.add_metric(at, buckets, value.total)
    return family


def _bound(end: float) -> str:
    return "+Inf" if end == math.inf else str(end)
