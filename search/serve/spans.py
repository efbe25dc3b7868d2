"""OpenTelemetry spans of searches, where `opentelemetry` is installed; what is done with them is its own setup's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from search.results.result import Result
from search.serve.metrics import STAGES

if TYPE_CHECKING:
    from search.serve.jobs import Job


class SearchSpan(Protocol):
    """What a search says of itself to whoever traces it."""

    def of(self, result: Result, *, late: bool) -> None:
        """Note what it came to; no text of it."""


class _NoSpan:
    def of(self, result: Result, *, late: bool) -> None:
        """Nobody traces."""


class _Span:
    def __init__(self, span: Any, failed: Any) -> None:
        self._span, self._failed = span, failed

    def of(self, result: Result, *, late: bool) -> None:
        stats = result.stats
        if result.error is not None and not late:
            self._span.set_status(self._failed)
        self._span.set_attribute("gen_ai.usage.input_tokens", len(result.tree.root.ids))
        if stats.policy_tokens is not None:
            self._span.set_attribute("gen_ai.usage.output_tokens", stats.policy_tokens)
        self._span.set_attribute("ets.nodes", stats.num_nodes)
        if stats.kv_tokens_peak is not None:
            self._span.set_attribute("ets.kv_tokens_peak", stats.kv_tokens_peak)
        self._span.set_attribute("ets.deadline_reached", late)
        self._span.set_attribute("ets.branches_lost", len(result.lost))
        for stage in STAGES:
            self._span.set_attribute(f"ets.seconds.{stage}", getattr(stats, f"seconds_{stage}"))


@contextmanager
def searching(job: Job) -> Iterator[SearchSpan]:
    """A span of one search, named as the GenAI conventions do, below its request's, or the one that its headers name.

    An exception that leaves the block is kept with the span.
    """
    try:
        from opentelemetry import propagate, trace
    except ModuleNotFoundError:
        yield _NoSpan()
        return
    settings = job.search.settings
    attributes = {
        "gen_ai.operation.name": "text_completion" if job.asked.raw else "chat",
        "gen_ai.request.model": job.model,
        "gen_ai.response.id": job.id,
        "ets.method": settings.method_name,
        "ets.width": settings.width,
        "ets.seed": str(job.seed),
        "ets.seconds.queue": job.seconds_queued,
    }
    inside = trace.get_current_span().get_span_context().is_valid
    with trace.get_tracer("ets.serve").start_as_current_span(
        f"search {settings.method_name}",
        context=None if inside else propagate.extract(job.headers),
        kind=trace.SpanKind.INTERNAL if inside else trace.SpanKind.SERVER,
        attributes=attributes,
    ) as span:
        yield _Span(span, trace.StatusCode.ERROR)
