"""A search's work in units of width times a solution's tokens, which is what chains write that share nothing.

The ratios say of a method what it holds, writes and has read, whatever the lengths. `docs/plan_ratios.py` measures them
on the mini family; a run that was kept gives those of its own model and problems.

What a search holds is its newest steps, which are as many as its width, and what it kept of each level above: of a
solution of D steps (1 + (D - 1) a) / D, where a is the share of a level that is kept. Models differ in D by far more
than in a: under REBASE a was 0.38 for Qwen2.5-Coder-1.5B (D 3.9), 0.42 for SmolLM2 (1.9), 0.45 for mini:target (5.2).

They differ as well in how unequal a problem's solutions are in length. What ends gives its slots back, so the longest
are not held beside all others: t tokens deep, t times the number of those that are longer. It is lineages that differ,
a of the width: what hangs on one trunk has its length in common.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from statistics import NormalDist
from typing import Any, NamedTuple

from search.errors import ConfigError
from search.loop.outcome import SearchOutcome
from search.support.statistics import half_width
from search.tree import SearchTree
from search.types import NodeStatus

_MANY = 1024
"""Chains beyond which no more of them hold another share of their tokens."""

_HELD = ("kv", "prm_kv")
"""Ratios of what is held at once, which depend on how many steps a solution has."""


@dataclass(frozen=True, slots=True)
class WorkRatios:
    """A method's work at one width, in units of width times a solution's tokens; the last in a solution's tokens.

    Attributes:
        kv: KV slots that the policy's engine holds at most, the prompt left out.
        prm_kv: the same of the reward model's engine.
        written: tokens that the policy writes.
        read: positions that the reward model reads.
        token_steps: tokens one after the other: each level waits for its longest step.
        steps: of a solution, where these were measured.
    """

    kv: float
    prm_kv: float
    written: float
    read: float
    token_steps: float
    steps: float

    def at_steps(self, steps: float) -> WorkRatios:
        """For solutions of so many steps, where the same share of each level is kept."""
        shares = {name: share for name in _HELD if (share := self._share_kept(name)) is not None}
        return replace(self, steps=steps, **{name: _held(share, steps) for name, share in shares.items()})

    def at_spread(self, spread: float, width: int) -> WorkRatios:
        """For solutions of which a problem's lengths differ by another spread than the mini family's.

        Args:
            spread: standard deviation of their lengths over the mean, at least 0.
            width: of the search.
        """
        changed, measured_at = {}, _kept()["spread"]
        for name in _HELD:
            lineages = width * (self._share_kept(name) or 1.0)
            changed[name] = getattr(self, name) * _peak(lineages, spread) / _peak(lineages, measured_at)
        return replace(self, **changed)

    def _share_kept(self, name: str) -> float | None:
        """The share of a level that is kept; None where that cannot be told: one step alone, or no such model."""
        share = (getattr(self, name) * self.steps - 1) / (self.steps - 1) if self.steps > 1 else 0.0
        return share if 0 < share < 1 else None

    @classmethod
    def measure(cls, outcomes: Iterable[SearchOutcome], width: int) -> Measured:
        """The ratios of searches of one method and width, and how long their prompts and solutions were.

        Raises:
            ConfigError: no solution finished.
        """
        sums = dict.fromkeys(("kv", "prm_kv", "written", "read", "token_steps"), 0.0)
        slots, prompts, lengths, steps = list[float](), 0, 0.0, 0.0
        for outcome in outcomes:
            tree, stats = outcome.tree, outcome.stats
            ends = tree.leaves(NodeStatus.FINISHED)
            if not ends:
                continue
            prompt = len(tree.root.ids)
            length = math.fsum(node.num_path_tokens for node in ends) / len(ends) - prompt
            prompts, lengths = prompts + prompt, lengths + length
            steps += math.fsum(node.depth for node in ends) / len(ends)
            held = stats.kv_tokens_engine_peak or stats.kv_tokens_ledger_peak or prompt  # servers tell none
            slots.append(float(held))
            sums["kv"] += held - prompt
            sums["prm_kv"] += max(0, (stats.kv_tokens_prm_peak or 0) - prompt)
            sums["written"] += stats.policy_tokens or 0
            sums["read"] += max(0, (stats.prm_tokens or 0) - prompt)
            sums["token_steps"] += width * _token_steps(tree)
        if not (num := len(slots)):
            raise ConfigError("no solution finished, so there is nothing to measure")
        ratios = cls(**{name: value / (width * lengths) for name, value in sums.items()}, steps=steps / num)
        return Measured(ratios, Lengths(prompts / num, lengths / num), num, half_width(slots) * num / math.fsum(slots))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of prompts and of solutions."""

    prompt: float
    solution: float


class Measured(NamedTuple):
    """What searches of one method and width took.

    Attributes:
        ratios, lengths: over their problems.
        num_problems: that had a solution.
        spread: half the width of the 95% interval of the KV slots' mean over such problems, as a share of it.
    """

    ratios: WorkRatios
    lengths: Lengths
    num_problems: int
    spread: float


def _token_steps(tree: SearchTree) -> int:
    """Tokens of the longest step of each level, added up."""
    longest: dict[int, int] = {}
    for node in tree:
        if node.parent is not None:
            longest[node.depth] = max(longest.get(node.depth, 0), len(node.ids))
    return sum(longest.values())


def measured(method: str, scored: bool = True) -> dict[int, WorkRatios]:
    """A method's ratios by width, as they were measured on the mini family.

    Args:
        method: its name.
        scored: by a reward model or the like; else by the policy's confidence.

    Raises:
        ConfigError: they were measured for other methods only.
    """
    kept = _kept()["scorers"]["mini:prm" if scored else "confidence:mean-logprob"]
    if method not in kept:
        raise ConfigError(
            f"method {method}: its work was not measured; measured: {', '.join(kept)}; --from reads a run of your own"
        )
    return {int(width): WorkRatios(**ratios) for width, ratios in kept[method].items()}


def _kept() -> dict[str, Any]:
    text = (resources.files("search.planning") / "ratios.json").read_text(encoding="utf-8")
    kept: dict[str, Any] = json.loads(text)
    return kept


def tells_apart(prm: str) -> bool:
    """Whether a scorer's rewards differ as a reward model's do; those of confidence lie near each other."""
    return prm.partition(":")[0] not in ("none", "confidence")


def at_width(by_width: Mapping[int, WorkRatios], width: int) -> WorkRatios:
    """Ratios at a width between or beyond those that were measured: straight lines over its logarithm, flat outside."""
    below = max((one for one in by_width if one <= width), default=min(by_width))
    above = min((one for one in by_width if one >= width), default=max(by_width))
    if above == below:
        return by_width[below]
    share = math.log(width / below) / math.log(above / below)
    low, high = asdict(by_width[below]), asdict(by_width[above])
    return WorkRatios(**{name: low[name] + share * (high[name] - low[name]) for name in low})


def carried(ratios: WorkRatios, method: str, measured_at: int, width: int, scored: bool = True) -> WorkRatios:
    """Ratios at another width than that at which they were measured, as those of the mini family change with it.

    A method that prunes holds a smaller share of a larger width. The share that it keeps of a level changes by its
    odds, so that it never passes the whole. Ratios of a method that was not measured there stay.
    """
    try:
        known = measured(method, scored)
    except ConfigError:
        return ratios
    before, after, changed = at_width(known, measured_at), at_width(known, width), asdict(ratios)
    for name in ("written", "read", "token_steps"):
        changed[name] *= getattr(after, name) / getattr(before, name) if getattr(before, name) else 1.0
    for name in _HELD:
        shares = [one._share_kept(name) for one in (ratios, before, after)]
        odds = [one / (1 - one) for one in shares if one is not None]
        if len(odds) == 3:
            odd = odds[0] * odds[2] / odds[1]
            changed[name] = _held(odd / (1 + odd), ratios.steps)
    return WorkRatios(**changed)


def _held(share: float, steps: float) -> float:
    """What is held of solutions of so many steps, where this share of each level is kept."""
    return (1 + (steps - 1) * share) / steps


def _peak(chains: float, spread: float) -> float:
    """What chains that share nothing hold at most, as a share of their tokens, if their lengths are lognormal.

    Args:
        chains: how many; what lies between two numbers is put between theirs.
        spread: of their lengths, as in `WorkRatios.at_spread`.
    """
    below = max(1, math.floor(min(chains, _MANY)))
    peaks = []
    for number in (below, below + 1):
        sigma, of = math.sqrt(math.log1p(spread**2)), NormalDist().inv_cdf
        lengths = [math.exp(sigma * of((index + 0.5) / number)) for index in range(number)]  # the shortest first
        peaks.append(max(length * (number - index) for index, length in enumerate(lengths)) / math.fsum(lengths))
    return peaks[0] + min(1.0, max(0.0, chains - below)) * (peaks[1] - peaks[0])
