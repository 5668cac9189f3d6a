"""What the front counts of itself: plain integers, kept by the routes there are.

A request costs two clock readings and a few additions. ``proxy.exposition`` turns the numbers into text when somebody asks.
"""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from llamamgr.core.histogram import Histogram

NO_ROUTE = "none"
CLIENT_LEFT = 499  # nginx's number for a client that went before its answer was complete


class RouteMetrics:
    """One route: requests being handled now, ended ones by status, and seconds from a request's head to its answer's."""

    __slots__ = ("first_byte", "in_flight", "statuses")

    def __init__(self) -> None:
        self.in_flight = 0
        self.statuses: Counter[int] = Counter()
        self.first_byte = Histogram()


class Metrics:
    """``routes`` by their pattern; ``broken`` answers that went wrong after their first byte; ``dropped`` connections by reason."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        self.broken = 0
        self.connections = 0
        self.dropped: Counter[str] = Counter()

    def of(self, request: web.Request) -> RouteMetrics:
        """The record of the route that ``request`` takes; what takes none shares one."""
        resource = request.match_info.route.resource
        path = NO_ROUTE if resource is None else resource.canonical
        known = self.routes.get(path)
        if known is None:
            known = self.routes[path] = RouteMetrics()
        return known
