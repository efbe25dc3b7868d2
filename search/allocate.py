"""Integer allocation of a search's width over its leaves: REBASE's rule, and an even split.

Weights are rounded to integers once (`WEIGHT_UNIT` for the best leaf) and everything after that is integer
arithmetic. So a quotient that is a whole number but for float noise, such as 4.000000000000001, is not
rounded up to 5, the parts sum to the width exactly, and the same rewards give the same allocation everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from search.errors import ConfigError, PolicyError, check_choice

Rounding = Literal["ceil", "round"]
"""`ceil`: what the ETS and REBASE code does; `round`: the formula in the REBASE paper."""

DEFAULT_TEMPERATURE = 0.2
"""REBASE's T in the ETS code; the REBASE paper has 0.1."""

WEIGHT_UNIT = 1 << 30
"""The best leaf's weight; weights closer than about 1e-9 of it count as equal."""


def softmax(values: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """Probabilities proportional to exp(value / temperature); stable for any finite values.

    Raises:
        ConfigError: the temperature is not a positive number.
        PolicyError: a value is NaN or infinite.
    """
    weights = _weights(values, temperature)
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def ranking(rewards: Sequence[float]) -> tuple[int, ...]:
    """Positions in falling reward; of equal rewards the lower position comes first."""
    return tuple(sorted(range(len(rewards)), key=lambda position: (-rewards[position], position)))


def ceil_sqrt(width: int) -> int:
    """The least integer whose square is at least `width`; 0 for 0."""
    return math.isqrt(width - 1) + 1 if width > 0 else 0


def even_split(width: int, num_leaves: int) -> tuple[int, ...]:
    """Split `width` children evenly over `num_leaves` leaves; the first get one more where there is a rest.

    The parts sum to `width`; without leaves there are no parts.
    """
    _check_width(width)
    if num_leaves <= 0:
        return ()
    share, more = divmod(width, num_leaves)
    return tuple(share + 1 if position < more else share for position in range(num_leaves))


def rebase_allocation(
    rewards: Sequence[float],
    width: int,
    temperature: float = DEFAULT_TEMPERATURE,
    rounding: Rounding = "ceil",
) -> tuple[int, ...]:
    """Children for each leaf by REBASE (arXiv 2408.00724): shares of `width` by softmax(reward / T).

    Leaves are visited in falling reward, of equal rewards the lower position first. With `ceil` a leaf gets
    n = ceil(width * w / sum of the w left), then `width` is less by n and the sum by w; the parts sum to
    `width`. With `round` it gets its share width * w / sum rounded to the nearest integer, halves up, as long
    as some of the width is left; the parts sum to `width` at most.

    Differs: the paper's rounding may hand out more than the width, or nothing where every share is under a
    half; in the first case the least rewarded go without here, in the second the best `width` get one each.

    Args:
        rewards: one finite number for each leaf.
        width: children to hand out, at least 0.
        temperature: T above; lower is greedier.
        rounding: which of the two rules.

    Returns:
        One count for each leaf, in the leaves' order; a higher reward never gets less than a lower one.

    Raises:
        ConfigError: negative width, a temperature that is not a positive number, an unknown rounding.
        PolicyError: a reward is NaN or infinite.
    """
    _check_width(width)
    check_choice("rounding", rounding, get_args(Rounding))
    weights = [round(weight * WEIGHT_UNIT) for weight in _weights(rewards, temperature)]
    order = ranking(rewards)
    shares = _ceil_shares if rounding == "ceil" else _round_shares
    counts = [0] * len(weights)
    for position, count in zip(order, shares([weights[i] for i in order], width), strict=True):
        counts[position] = count
    return tuple(counts)


def _ceil_shares(weights: Sequence[int], width: int) -> list[int]:
    """Shares of falling integer weights, each rounded up out of what is left."""
    left = sum(weights)
    counts = []
    for weight in weights:
        count = -(-width * weight // left) if left else 0
        counts.append(count)
        width -= count
        left -= weight
    return counts


def _round_shares(weights: Sequence[int], width: int) -> list[int]:
    """Shares of falling integer weights, each rounded to the nearest integer while the width lasts."""
    total = sum(weights)
    counts = []
    left = width
    for weight in weights:
        count = min((2 * width * weight + total) // (2 * total), left)
        counts.append(count)
        left -= count
    if left == width:
        return [1 if rank < width else 0 for rank in range(len(weights))]
    return counts


def _weights(values: Sequence[float], temperature: float) -> list[float]:
    """exp(value / temperature), scaled so that the largest is 1."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be a positive number, not {temperature}")
    for position, value in enumerate(values):
        if not math.isfinite(value):
            raise PolicyError(f"the reward of leaf {position} is {value}; it must be a finite number")
    if not values:
        return []
    best = max(values)
    return [math.exp((value - best) / temperature) for value in values]


def _check_width(width: int) -> None:
    if width < 0:
        raise ConfigError(f"width must be at least 0, not {width}")
