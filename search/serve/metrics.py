"""What `/metrics` shows, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from search.protocols import Engine
from search.results.result import Result
from search.serve.gate import Gate

if TYPE_CHECKING:
    from search.engines.local.engine import PoolUse

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)

STAGES = ("policy", "prm", "features", "select")


@runtime_checkable
class Pooled(Protocol):
    """An engine that knows what its whole KV cache holds."""

    def pool(self) -> PoolUse:
        """Its slots now."""


class Metrics:
    """Counters of one server. Names begin with `ets_`; those of the process are the client library's."""

    def __init__(self, gate: Gate, engines: Callable[[], Mapping[str, Engine]]) -> None:
        """Read running and waiting searches from `gate`, and the cache held from the engines, by role."""
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("ets_requests", "Answers by route and status.", ["route", "status"], registry=registry)
        self._searches = Counter("ets_searches", "Searches by their end.", ["end"], registry=registry)
        self._tokens = Counter(
            "ets_tokens", "Tokens of searches that ended, by the model's role.", ["role", "kind"], registry=registry
        )
        self._stages = Counter(
            "ets_stage_seconds",
            "Seconds of searches that ended, by stage; stages overlap. Queue: before a search began.",
            ["stage"],
            registry=registry,
        )
        self._lost = Counter(
            "ets_branches_lost", "Branches that searches lost, of those that came to a result.", registry=registry
        )
        self._seconds = Histogram(
            "ets_search_seconds", "Seconds of a search, waiting left out.", buckets=_SECONDS, registry=registry
        )
        running = Gauge("ets_searches_running", "Searches that run now.", registry=registry)
        running.set_function(lambda: gate.running)
        waiting = Gauge("ets_searches_waiting", "Searches that wait for their turn.", registry=registry)
        waiting.set_function(lambda: gate.waiting)
        registry.register(_Held(engines))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    def answered(self, route: str, status: int) -> None:
        """Count an answer; 499 stands for a client that left before it."""
        self._requests.labels(route, str(status)).inc()

    def waited(self, seconds: float) -> None:
        """Count the time before a search began."""
        self._stages.labels("queue").inc(seconds)

    def ended(self, how: str, seconds: float, result: Result | None) -> None:
        """Count a search, and what it cost where it came to a result."""
        self._searches.labels(how).inc()
        self._seconds.observe(seconds)
        if result is None:
            return
        self._lost.inc(len(result.lost))
        for stage in STAGES:
            self._stages.labels(stage).inc(getattr(result.stats, f"seconds_{stage}"))
        for role, cost in result.models.items():
            if cost.sampled_tokens is not None:
                self._tokens.labels(role, "sampled").inc(cost.sampled_tokens)
            self._tokens.labels(role, "dropped").inc(cost.dropped_tokens)
            if cost.computed_tokens is not None:
                self._tokens.labels(role, "computed").inc(cost.computed_tokens)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _Held(Collector):
    """KV slots held, by role, where an engine can tell; a server's cache is the server's own to report."""

    def __init__(self, engines: Callable[[], Mapping[str, Engine]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held = GaugeMetricFamily("ets_kv_tokens_held", "KV slots held now, by the model's role.", labels=["role"])
        for role, engine in self._engines().items():
            if isinstance(engine, Pooled):
                held.add_metric([role], engine.pool().held)
        yield held
