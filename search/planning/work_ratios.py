"""A search's work in units of width times a solution's tokens, which is what chains write that share nothing.

The ratios say of a method what it holds, writes and has read, whatever the lengths. `docs/plan_ratios.py` measures them
on the mini family; a run that was kept gives those of its own model and problems. On GSM8K at width 8, by confidence,
those of Qwen2.5-Coder-1.5B are 0.82 (independent samples) to 1.10 (ets-kv) of the mini family's for KV slots.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import NamedTuple, Self

from search.errors import ConfigError
from search.loop.outcome import SearchOutcome
from search.tree import SearchTree
from search.types import NodeStatus


@dataclass(frozen=True, slots=True)
class WorkRatios:
    """A method's work at one width, in units of width times a solution's tokens; the last in a solution's tokens.

    Attributes:
        kv: KV slots that the policy's engine holds at most, the prompt left out.
        prm_kv: the same of the reward model's engine.
        written: tokens that the policy writes.
        read: positions that the reward model reads.
        token_steps: tokens one after the other: each level waits for its longest step.
    """

    kv: float
    prm_kv: float
    written: float
    read: float
    token_steps: float

    @classmethod
    def measure(cls, outcomes: Iterable[SearchOutcome], width: int) -> tuple[Self, Lengths]:
        """The ratios of searches of one method and width, and how long their prompts and solutions were.

        Raises:
            ConfigError: no solution finished.
        """
        sums, num, prompts, lengths = dict.fromkeys((one.name for one in fields(cls)), 0.0), 0, 0, 0.0
        for outcome in outcomes:
            tree, stats = outcome.tree, outcome.stats
            ends = [node.num_path_tokens for node in tree.leaves(NodeStatus.FINISHED)]
            if not ends:
                continue
            prompt = len(tree.root.ids)
            length = math.fsum(ends) / len(ends) - prompt
            num, prompts, lengths = num + 1, prompts + prompt, lengths + length
            held = stats.kv_tokens_engine_peak or stats.kv_tokens_ledger_peak or prompt  # servers tell none
            sums["kv"] += held - prompt
            sums["prm_kv"] += max(0, (stats.kv_tokens_prm_peak or 0) - prompt)
            sums["written"] += stats.policy_tokens or 0
            sums["read"] += max(0, (stats.prm_tokens or 0) - prompt)
            sums["token_steps"] += width * _token_steps(tree)
        if not num:
            raise ConfigError("no solution finished, so there is nothing to measure")
        unit = width * lengths
        return cls(**{name: value / unit for name, value in sums.items()}), Lengths(prompts / num, lengths / num)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of prompts and of solutions."""

    prompt: float
    solution: float


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
    text = (resources.files("search.planning") / "ratios.json").read_text(encoding="utf-8")
    kept = json.loads(text)["scorers"]["mini:prm" if scored else "confidence:mean-logprob"]
    if method not in kept:
        raise ConfigError(
            f"method {method}: its work was not measured; measured: {', '.join(kept)}; --from reads a run of your own"
        )
    return {int(width): WorkRatios(**ratios) for width, ratios in kept[method].items()}


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

    A method that prunes holds a smaller share of a larger width. Shares of what is held change by their odds, so that
    none passes the whole. Those of a method that was not measured there stay.
    """
    try:
        known = measured(method, scored)
    except ConfigError:
        return ratios
    before, after = asdict(at_width(known, measured_at)), asdict(at_width(known, width))
    changed = {
        name: _by_odds(value, before[name], after[name])
        if name in ("kv", "prm_kv")
        else value * (after[name] / before[name] if before[name] else 1.0)
        for name, value in asdict(ratios).items()
    }
    return WorkRatios(**changed)


def _by_odds(share: float, before: float, after: float) -> float:
    """A share whose odds change as they do from `before` to `after`; one that has no odds stays."""
    if not all(0 < one < 1 for one in (share, before, after)):
        return share
    odds = share / (1 - share) * (after / (1 - after)) / (before / (1 - before))
    return odds / (1 + odds)


class RunRatios(NamedTuple):
    """What a run that was kept tells of its searches' work; `scored`: by what tells steps apart."""

    method: str
    width: int
    scored: bool
    ratios: WorkRatios
    lengths: Lengths


def read_run_ratios(folder: Path) -> RunRatios:
    """The work of a run that was kept.

    Raises:
        ConfigError: there is none, or nothing finished in it.
    """
    from search.runs.report import read_run

    run = read_run(folder)
    outcomes: Sequence[SearchOutcome] = [one for record in run.records if (one := record.outcome()) is not None]
    ratios, lengths = WorkRatios.measure(outcomes, run.settings.width)
    return RunRatios(run.settings.method_name, run.settings.width, tells_apart(run.settings.prm), ratios, lengths)
