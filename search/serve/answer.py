"""From a search's result to a chat completion, whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.ledger import ModelCost
from search.record import stats_record
from search.result import Result, Trajectory
from search.serve.best import best
from search.serve.jobs import Job, ProgressEvent
from search.serve.names import short_name
from search.tree import Node
from search.types import ROOT

_ENDED_ITSELF = ("end of text", "final answer")
"""Reasons of trajectories that came to their own end; all others are limits."""


def finish_reason(one: Trajectory | None) -> str:
    """OpenAI's word: "stop" where the model came to its end, "length" where a limit ended it or left nothing."""
    return "stop" if one is not None and one.reason in _ENDED_ITSELF else "length"


def usage(result: Result, choices: Sequence[Trajectory]) -> dict[str, Any]:
    """OpenAI's counts for what was returned, and under `search` what it took."""
    prompt = len(result.tree.root.ids)
    written = sum(one.num_tokens for one in choices)
    stats = result.stats
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "search": {
            "models": {role: _model(cost) for role, cost in result.models.items()},
            "sampled_tokens": stats.policy_tokens,
            "dropped_tokens": sum(node.dropped_tokens for node in result.tree),
            "tokens_thrown": stats.tokens_thrown,
            "unique_tokens": stats.unique_tokens,
            "kv_tokens_mean": stats.kv_tokens_mean,
            "kv_tokens_peak": stats.kv_tokens_peak,
        },
    }


def _model(cost: ModelCost) -> dict[str, Any]:
    return {
        "num_calls": cost.num_calls,
        "sampled_tokens": cost.sampled_tokens,
        "dropped_tokens": cost.dropped_tokens,
        "computed_tokens": cost.computed_tokens,
    }


def about(job: Job, result: Result) -> dict[str, Any]:
    """The search itself: its answer, its vote, its cost, and what repeats it."""
    settings = job.search.settings
    return {
        "problem": job.problem.text,
        "answer": result.answer,
        "tally": dict(result.tally),
        "method": settings.method_name,
        "width": settings.width,
        "writer": settings.writer,
        "router": settings.router if settings.writer == "arbitrage" else None,
        "seed": job.seed,
        "num_trajectories": len(result.trajectories),
        "num_ignored_messages": job.asked.num_ignored,
        "seconds_queued": job.seconds_queued,
        "notes": list(result.notes),
        "stats": stats_record(result.stats),
    }


def completion(job: Job, model: str, result: Result) -> dict[str, Any]:
    """The whole answer as one object."""
    choices = best(result, job.asked.num_choices)
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.arrived),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": "" if one is None else one.text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(one),
                "search": _judged(one),
            }
            for index, one in enumerate(choices or [None])
        ],
        "usage": usage(result, choices),
        "search": about(job, result),
    }


def _judged(one: Trajectory | None) -> dict[str, Any]:
    if one is None:
        return {"answer": None, "reward": None, "rewards": []}
    return {"answer": one.answer, "reward": one.reward, "rewards": list(one.rewards)}


class Chunks:
    """The objects of one stream, in the order in which they are asked for."""

    def __init__(self, job: Job, model: str) -> None:
        """Stream the answer to `job`, under the model's name as the client gave it."""
        self._job, self._model = job, model

    def begin(self) -> dict[str, Any]:
        """Who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, event: ProgressEvent) -> dict[str, Any]:
        """How far the search is; the delta is empty."""
        return self._chunk({}, search=dict(event.fields))

    def step(self, node: Node) -> dict[str, Any]:
        """A step of the first choice."""
        about_step = {
            "depth": node.depth,
            "reward": node.reward,
            "writer": short_name(node.writer),
            "tokens": len(node.ids),
        }
        return self._chunk({"content": self._told(node)}, search={"step": about_step})

    def _told(self, node: Node) -> str:
        """What a step adds to the text that a client gets, which may leave thoughts out."""
        tree = self._job.tree
        assert tree is not None and node.parent is not None
        text = tree.spoken_text if self._job.search.settings.thinking == "drop" else tree.solution_text
        return text(node.id)[0 if node.parent == ROOT else len(text(node.parent)) :]

    def end(self, result: Result) -> Iterator[dict[str, Any]]:
        """What was not decided before the vote, the other choices, how each ended, and the usage if asked for."""
        choices = best(result, self._job.asked.num_choices)
        if choices:
            for node in self._job.rest(choices[0].node):
                yield self.step(node)
        for index, one in enumerate(choices[1:], 1):
            yield self._chunk({"role": "assistant", "content": one.text}, index)
        for index, ended in enumerate(choices or [None]):
            search: dict[str, Any] = _judged(ended)
            if index == 0:
                search = {**about(self._job, result), **search}
            yield self._chunk({}, index, finish_reason(ended), search)
        if self._job.asked.include_usage:
            yield {**self._head(), "choices": [], "usage": usage(result, choices)}

    def _head(self) -> dict[str, Any]:
        job = self._job
        return {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": int(job.arrived),
            "model": self._model,
        }

    def _chunk(
        self,
        delta: Mapping[str, Any],
        index: int = 0,
        finish: str | None = None,
        search: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        chunk = {**self._head(), "choices": [choice]}
        if self._job.asked.include_usage:
            chunk["usage"] = None
        return chunk if search is None else {**chunk, "search": dict(search)}
