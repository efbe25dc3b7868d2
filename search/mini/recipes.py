"""How each mini model is made: sizes, rates, lengths, seeds. The shipped weights are exactly these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from search.errors import ConfigError
from search.mini.muon import OptimiserSettings

Role = Literal["target", "draft", "prm"]
ROLES: tuple[Role, ...] = ("target", "draft", "prm")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is trained.

    Attributes:
        role: which model.
        num_layers: decoder layers.
        dim: width of the residual stream.
        num_heads: attention heads.
        mlp_dim: inner width of the feed-forward part.
        num_steps: batches in all.
        batch_documents: documents in a batch, of about 125 tokens each.
        optimiser: rates and schedule.
        num_eval_problems: dev problems in each point of the dev curve.
        num_evals: points of the dev curve.
        policy_problems: for the PRM, train problems that each policy solves for it.
        policy_samples: solutions sampled to each of these.
        policy_share: share of these solutions in the PRM's second part.
        policy_start: share of training after which they come in.
        drill_share: share of drills in the PRM's first part.
        drill_share_later: share of drills in its second part.
        writing_weight: for the PRM, weight of the words of right steps against that of the labels.
    """

    role: Role
    num_layers: int
    dim: int
    num_heads: int
    mlp_dim: int
    num_steps: int
    batch_documents: int
    optimiser: OptimiserSettings
    num_eval_problems: int = 200
    num_evals: int = 10
    policy_problems: int = 0
    policy_samples: int = 1
    policy_share: float = 0.0
    policy_start: float = 0.5
    drill_share: float = 0.0
    drill_share_later: float = 0.0
    writing_weight: float = 0.0


RECIPES: dict[Role, Recipe] = {
    "target": Recipe("target", 4, 128, 4, 352, 2200, 13, OptimiserSettings(0.006, 3e-3)),
    "draft": Recipe("draft", 2, 64, 2, 176, 4500, 13, OptimiserSettings(0.008, 3e-3)),
    "prm": Recipe(
        "prm",
        6,
        128,
        4,
        352,
        1800,
        13,
        OptimiserSettings(0.005, 1e-3),
        policy_problems=1000,
        policy_samples=3,
        policy_share=0.45,
        drill_share=0.8,
        drill_share_later=0.35,
        writing_weight=0.5,
    ),
}


def recipe_for(role: str, scale: float = 1.0) -> Recipe:
    """The recipe of a role, or a smaller one for tests.

    Args:
        role: "target", "draft" or "prm".
        scale: share of the training's length, in (0, 1]; below 0.1 the model is cut to two narrow layers also.

    Raises:
        ConfigError: if the role is unknown or the scale out of range.
    """
    if role not in ROLES:
        raise ConfigError(f"unknown mini role {role!r}; known: {', '.join(ROLES)}")
    if not 0 < scale <= 1:
        raise ConfigError(f"scale must be above 0 and at most 1, not {scale}")
    full = RECIPES[role]
    if scale == 1:
        return full
    small = replace(
        full,
        num_steps=max(2, round(full.num_steps * scale)),
        policy_problems=max(4, round(full.policy_problems * scale)) if full.policy_problems else 0,
        num_eval_problems=max(4, round(full.num_eval_problems * scale)),
        num_evals=2,
    )
    return replace(small, num_layers=2, dim=32, num_heads=2, mlp_dim=64) if scale < 0.1 else small
