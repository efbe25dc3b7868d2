"""Which of a search's trajectories are given out, and in which order."""

from __future__ import annotations

from search.results.result import Result, Trajectory


def best(result: Result, num_choices: int) -> list[Trajectory]:
    """The best trajectories, each text once: the vote's winner, then the others by reward.

    There are fewer where the search found fewer. One that found no answer is led by its highest reward.
    """
    ranked = sorted(
        result.trajectories,
        key=lambda one: (
            one.node != result.winner,
            0.0 if one.reward is None else -one.reward,
            one.node,
        ),
    )
    distinct: dict[str, Trajectory] = {}
    for one in ranked:
        distinct.setdefault(one.text, one)
    return list(distinct.values())[:num_choices]
