"""OpenTelemetry spans of searches, where `opentelemetry` is installed; what is done with them is its own setup's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from search.results.result import Result
from search.serve.metrics import STAGES

if TYPE_CHECKING:
    from search.serve.jobs import Job


@contextmanager
def searching(job: Job) -> Iterator[Callable[[Result], None]]:
    """A span of one search, named as the GenAI conventions do, below its request's, or the one that its headers name.

    What the search came to is to be told to what the block is given; no text of it is kept. An exception that leaves
    the block is kept with the span.
    """
    try:
        from opentelemetry import propagate, trace
    except ModuleNotFoundError:
        yield lambda result: None
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

        def note(result: Result) -> None:
            if result.error is not None and not job.late:
                span.set_status(trace.StatusCode.ERROR)
            span.set_attributes({name: value for name, value in _figures(job, result).items() if value is not None})

        yield note


def _figures(job: Job, result: Result) -> dict[str, Any]:
    stats = result.stats
    return {
        "gen_ai.usage.input_tokens": len(result.tree.root.ids),
        "gen_ai.usage.output_tokens": stats.policy_tokens,
        "ets.nodes": stats.num_nodes,
        "ets.kv_tokens_peak": stats.kv_tokens_peak,
        "ets.deadline_reached": job.late,
        "ets.branches_lost": len(result.lost),
        **{f"ets.seconds.{stage}": getattr(stats, f"seconds_{stage}") for stage in STAGES},
    }
