"""From a search's result to an answer of OpenAI's shape, whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.ledger import ModelCost
from search.results.record import stats_record
from search.results.result import Result, Trajectory
from search.serve.best import best
from search.serve.forms import Told
from search.serve.jobs import Job, ProgressEvent
from search.serve.names import scorer_name, short_name
from search.tree import Node

_ENDED_ITSELF = ("end of text", "final answer")
"""Reasons of trajectories that came to their own end; all others are limits."""


def finish_reason(trajectory: Trajectory | None) -> str:
    """OpenAI's word: "stop" where the model came to its end, "length" where a limit ended it or left nothing."""
    return "stop" if trajectory is not None and trajectory.reason in _ENDED_ITSELF else "length"


def usage(result: Result, choices: Sequence[Trajectory]) -> dict[str, Any]:
    """OpenAI's counts for what was returned, and under `search` what it took."""
    prompt = len(result.tree.root.ids)
    written = sum(trajectory.num_tokens or 0 for trajectory in choices)  # known of every engine that is served
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
    settings, ignored = job.search.settings, job.prompt.num_left_out
    return {
        "problem": job.asked.problem,
        "answer": result.answer,
        "tally": dict(result.tally),
        "method": settings.method_name,
        "width": settings.width,
        "writer": settings.writer,
        "router": settings.router if settings.writer == "arbitrage" else None,
        "prm": scorer_name(settings.prm),
        "seed": job.seed,
        "num_trajectories": len(result.trajectories),
        "num_ignored_messages": ignored,
        "deadline": job.deadline,
        "deadline_reached": job.late,
        "branches_lost": len(result.lost),
        "seconds_queued": job.seconds_queued,
        "notes": [
            *result.notes,
            *([_IGNORED.format(ignored)] if ignored else []),
            *([_LOST.format(len(result.lost), result.lost[0])] if result.lost else []),
        ],
        "stats": stats_record(result.stats),
    }


_LOST = "branches lost: {}; the answer stands on the others; the first: {}"
_IGNORED = "this model's chat template has no place for {} of the earlier messages; it did not read them"


def completion(job: Job, result: Result) -> dict[str, Any]:
    """The whole answer as one object."""
    choices, form = best(result, job.asked.num_choices), job.form
    return {
        "id": job.id,
        "object": form.kind,
        "created": int(job.arrived),
        "model": job.model,
        "choices": [
            {
                "index": index,
                **form.choice(_told(job, result, trajectory), _logprobs(job, result, trajectory)),
                "finish_reason": finish_reason(trajectory),
                "search": _judged(trajectory),
            }
            for index, trajectory in enumerate(choices or [None])
        ],
        "usage": usage(result, choices),
        "search": about(job, result),
    }


def _told(job: Job, result: Result, trajectory: Trajectory | None) -> Told:
    return Told("") if trajectory is None else job.form.told(result.tree, trajectory.node)


def _logprobs(job: Job, result: Result, trajectory: Trajectory | None) -> dict[str, Any] | None:
    if trajectory is None or not job.asked.logprobs:
        return None
    return job.form.logprobs(job.search.driver.writer.tokenizer, result.tree.path(trajectory.node)[1:])


def _judged(trajectory: Trajectory | None) -> dict[str, Any]:
    if trajectory is None:
        return {"answer": None, "reward": None, "rewards": []}
    return {"answer": trajectory.answer, "reward": trajectory.reward, "rewards": list(trajectory.rewards)}


class Chunks:
    """The objects of one stream, in the order in which they are asked for."""

    def __init__(self, job: Job) -> None:
        """Stream the answer to `job`."""
        self._job, self._form = job, job.form
        self._sent = Told("")
        self._offset = 0

    def begin(self) -> dict[str, Any]:
        """Who speaks."""
        return self._chunk(self._form.piece(Told(""), None, role=True))

    def progress(self, event: ProgressEvent) -> dict[str, Any]:
        """How far the search is; the piece is empty."""
        return self._chunk(self._form.piece(None, None), search=dict(event.fields))

    def step(self, node: Node, *, last: bool = False) -> dict[str, Any]:
        """A step of the first choice."""
        job = self._job
        assert job.tree is not None
        told = self._form.told(job.tree, node.id, ended=last)
        logprobs = None
        if job.asked.logprobs:
            logprobs = self._form.logprobs(job.search.driver.writer.tokenizer, [node], self._offset)
            self._offset += len(node.text)
        about_step = {
            "depth": node.depth,
            "reward": node.reward,
            "writer": short_name(node.writer),
            "tokens": len(node.ids),
        }
        piece, self._sent = told.after(self._sent), told
        return self._chunk(self._form.piece(piece, logprobs), search={"step": about_step})

    def end(self, result: Result) -> Iterator[dict[str, Any]]:
        """What was not decided before the vote, the other choices, how each ended, and the usage if asked for."""
        job = self._job
        choices = best(result, job.asked.num_choices)
        if choices:
            rest = job.rest(choices[0].node)
            for node in rest:
                yield self.step(node, last=node is rest[-1])
            if held := _told(job, result, choices[0]).after(self._sent).content:
                yield self._chunk(self._form.piece(Told(held), None))
        for index, trajectory in enumerate(choices[1:], 1):
            yield self._chunk(
                self._form.piece(_told(job, result, trajectory), _logprobs(job, result, trajectory)), index
            )
        for index, ended in enumerate(choices or [None]):
            search: dict[str, Any] = _judged(ended)
            if index == 0:
                search = {**about(job, result), **search}
            yield self._chunk(self._form.piece(None, None), index, finish_reason(ended), search)
        if job.asked.include_usage:
            yield {**self._head(), "choices": [], "usage": usage(result, choices)}

    def _head(self) -> dict[str, Any]:
        job = self._job
        return {"id": job.id, "object": self._form.chunk_kind, "created": int(job.arrived), "model": job.model}

    def _chunk(
        self,
        piece: Mapping[str, Any],
        index: int = 0,
        finish: str | None = None,
        search: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        chunk = {**self._head(), "choices": [{"index": index, **piece, "finish_reason": finish}]}
        if self._job.asked.include_usage:
            chunk["usage"] = None
        return chunk if search is None else {**chunk, "search": dict(search)}
