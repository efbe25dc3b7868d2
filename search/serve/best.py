"""Which of a search's trajectories are given out, and in which order."""

from __future__ import annotations

from search.results.result import Result, Trajectory


def best(result: Result, num_choices: int) -> list[Trajectory]:
    """The best trajectories, each text once: the vote's winner, then the others by reward.

    There are fewer where the search found fewer. One that found no answer is led by its highest reward.
    """
    ranked = sorted(
        result.trajectories,
        key=lambda trajectory: (
            trajectory.node != result.winner,
            0.0 if trajectory.reward is None else -trajectory.reward,
            trajectory.node,
        ),
    )
    distinct: dict[str, Trajectory] = {}
    for trajectory in ranked:
        distinct.setdefault(trajectory.text, trajectory)
    return list(distinct.values())[:num_choices]
