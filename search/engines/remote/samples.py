"""What a server says of the samples it writes, and what of a sample is the step that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from search.engines.stops import StopRule, Writing
from search.steps import BLANK_LINE
from search.types import FinishReason, Sampling

_BLANK_LINES = (BLANK_LINE, "\r\n\r\n", "\n \n", "\n   \n")
"""What a server can be asked to stop at; after a blank line that looks otherwise, what it wrote is cut off here."""


class Sample(NamedTuple):
    """What a server says of one of the samples it writes.

    Attributes:
        number: which of the samples asked for, from 0.
        ids: all ids so far.
        finish: why it ended; None while it is being written.
        cached_tokens: of the prompt, tokens that were not computed for it; None where the server does not say.
        request: the server's name for it, by which it can be aborted; empty where it has none.
        matched: the end token that stopped it, if one did and the server says which.
        logprobs: log-probability of each of `ids`; None where they were not asked for, or the server gives none.
    """

    number: int
    ids: tuple[int, ...]
    finish: Literal["stop", "length", "abort"] | None
    cached_tokens: int | None = None
    request: str = ""
    matched: int | None = None
    logprobs: tuple[float, ...] | None = None

    @property
    def whole(self) -> tuple[int, ...]:
        """The ids with the end token, which some servers leave out."""
        if self.matched is None or self.ids[-1:] == (self.matched,):
            return self.ids
        return (*self.ids, self.matched)


class Read(NamedTuple):
    """Numbers that a server read at the end of a prompt, and how much of the prompt was in its cache."""

    values: tuple[float, ...]
    cached_tokens: int | None = None


def ask_for(sampling: Sampling, num_written: int) -> Sampling:
    """What a server is asked, that knows nothing of our steps, so that it stops wherever a step may end.

    Near the limit, where any line's end ends a step, that is another request: the first one stops before.
    """
    if BLANK_LINE not in sampling.stop:
        return replace(sampling, max_new_tokens=sampling.max_new_tokens - num_written)
    others = tuple(stop for stop in sampling.stop if stop != BLANK_LINE)
    lines, most = sampling.line_end_tokens, sampling.max_new_tokens
    stops: tuple[str, ...] = _BLANK_LINES
    if lines is not None and num_written >= lines:
        stops = ("\n",)
    elif lines is not None:
        most = min(most, lines)
    return replace(sampling, max_new_tokens=most - num_written, stop=(*stops, *others))


def judge(
    sample: Sample, rule: StopRule, writing: Writing, written: tuple[int, ...], sampling: Sampling, asked: int
) -> tuple[tuple[int, ...], FinishReason | None]:
    """Where the step ends in a sample that ended.

    Args:
        sample: what the server wrote.
        rule: the rule of the step.
        writing: what the rule knows of the step so far; it is brought up to date.
        written: tokens of the step that earlier requests wrote.
        sampling: how the step was to be sampled.
        asked: the tokens that the server was asked for.

    Returns:
        All ids of the step so far, without what the server wrote beyond its end, and why it ended: by its ids alone, as
        servers call a step that ends at its very limit cut. None: it has to be continued.
    """
    new = sample.whole
    number, finish = rule.find_end(writing, written, new, sampling)
    ids = (*written, *new[:number])
    if finish is not None:
        return ids, finish
    may_end = any(rule.maybe[token] for token in new)
    its_own = sample.finish == "stop" and (BLANK_LINE not in sampling.stop or not may_end)
    if its_own or sample.matched is not None:
        return ids, FinishReason.STOP  # it knows of an end that we do not
    gave_up = sample.finish == "length" and len(new) < asked
    return ids, FinishReason.LENGTH if gave_up or len(ids) >= sampling.max_new_tokens else None
