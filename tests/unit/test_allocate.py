"""REBASE's allocation worked by hand, and the even split."""

import math
from decimal import Decimal

import pytest

from search.allocate import ceil_sqrt, even_split, ranking, rebase_allocation, softmax
from search.errors import ConfigError, PolicyError


def test_rebase_at_width_16_by_hand():
    # T = 0.2; weights over the best: e^0 = 1, e^-0.5 = 0.6065, twice e^-2 = 0.1353, e^-4 = 0.0183; sum 1.8955.
    # 16 * 1      / 1.8955 = 8.441 -> 9; left 7, sum 0.8955
    #  7 * 0.6065 / 0.8955 = 4.741 -> 5; left 2, sum 0.2890
    #  2 * 0.1353 / 0.2890 = 0.937 -> 1; left 1, sum 0.1536
    #  1 * 0.1353 / 0.1536 = 0.881 -> 1; left 0
    assert rebase_allocation([0.9, 0.8, 0.5, 0.5, 0.1], 16) == (9, 5, 1, 1, 0)
    # The same leaves in another order.
    assert rebase_allocation([0.1, 0.5, 0.9, 0.5, 0.8], 16) == (0, 1, 9, 1, 5)


def test_the_papers_rounding_by_hand():
    # 16 * w / 1.8955 = 8.441 -> 8, 5.120 -> 5, 1.142 -> 1, 1.142 -> 1, 0.155 -> 0; one child is not handed out.
    assert rebase_allocation([0.9, 0.8, 0.5, 0.5, 0.1], 16, rounding="round") == (8, 5, 1, 1, 0)
    # Three times 5/3 rounds to 2, 6 in all: the last leaf has to do with the 1 that is left.
    assert rebase_allocation([0.5, 0.5, 0.5], 5, rounding="round") == (2, 2, 1)
    # Five shares of 2/5 all round to nothing: the first two get one each.
    assert rebase_allocation([0.5] * 5, 2, rounding="round") == (1, 1, 0, 0, 0)


def test_a_lower_temperature_is_greedier():
    # T = 0.1: weights 1, e^-1 = 0.3679, e^-4 = 0.0183, twice, e^-8 = 0.0003; sum 1.4049.
    # 16 / 1.4049 = 11.39 -> 12; 4 * 0.3679 / 0.4049 = 3.63 -> 4; nothing left.
    assert rebase_allocation([0.9, 0.8, 0.5, 0.5, 0.1], 16, temperature=0.1) == (12, 4, 0, 0, 0)


def test_ties_go_to_the_lower_position():
    # 5 / 3 -> 2; 3 / 2 -> 2; 1.
    assert rebase_allocation([0.4, 0.4, 0.4], 5) == (2, 2, 1)


@pytest.mark.parametrize("num_leaves", range(1, 60))
@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3])
def test_a_whole_quotient_is_not_rounded_up_by_float_noise(num_leaves, reward):
    noisy = [reward + (i % 3) * 1e-16 for i in range(num_leaves)]
    assert rebase_allocation(noisy, 4 * num_leaves) == (4,) * num_leaves


def test_extreme_temperatures_and_rewards_stay_finite():
    assert rebase_allocation([0.0, 1.0], 8, temperature=1e-6) == (0, 8)
    assert rebase_allocation([0.0, 1.0], 8, temperature=1e12) == (4, 4)
    assert rebase_allocation([-1e6, 1e6], 3) == (0, 3)


def test_edges():
    assert rebase_allocation([], 4) == ()
    assert rebase_allocation([0.2, 0.9], 0) == (0, 0)
    assert rebase_allocation([0.2, 0.9], 0, rounding="round") == (0, 0)
    assert rebase_allocation([0.2], 7) == (7,)
    assert even_split(7, 3) == (3, 2, 2)
    assert even_split(2, 3) == (1, 1, 0)
    assert even_split(5, 0) == ()
    assert [ceil_sqrt(width) for width in (0, 1, 2, 4, 5, 9, 10, 16, 64, 256)] == [0, 1, 2, 2, 3, 3, 4, 4, 8, 16]
    assert ranking([0.2, 0.9, 0.2]) == (1, 0, 2)


def test_softmax_is_stable():
    assert softmax([1000.0, 1000.0]) == (0.5, 0.5)
    exact = [Decimal(x).exp() for x in (0, 1, 2)]
    assert softmax([0.0, 0.5, 1.0], 0.5) == pytest.approx([float(x / sum(exact)) for x in exact])


def test_bad_input_is_refused():
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="temperature"):
            rebase_allocation([0.5], 1, temperature)
    with pytest.raises(ConfigError, match="width"):
        rebase_allocation([0.5], -1)
    with pytest.raises(ConfigError, match="width"):
        even_split(-1, 2)
    with pytest.raises(ConfigError, match=r"ceil, round.*'floor'"):
        rebase_allocation([0.5], 1, rounding="floor")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="leaf 1 is nan"):
        rebase_allocation([0.5, math.nan], 1)
