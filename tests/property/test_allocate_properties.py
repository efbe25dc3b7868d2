"""What holds for every allocation."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from search.allocate import even_split, rebase_allocation

REWARDS = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=40)
WIDTHS = st.integers(1, 300)
TEMPERATURES = st.floats(0.01, 10)


@given(REWARDS, WIDTHS, TEMPERATURES)
def test_ceil_spends_the_width_exactly(rewards, width, temperature):
    counts = rebase_allocation(rewards, width, temperature)
    assert sum(counts) == width
    assert min(counts) >= 0


@given(REWARDS, WIDTHS, TEMPERATURES)
def test_round_spends_at_least_one_and_never_more_than_the_width(rewards, width, temperature):
    counts = rebase_allocation(rewards, width, temperature, "round")
    assert 1 <= sum(counts) <= width
    assert min(counts) >= 0


@given(REWARDS, WIDTHS, TEMPERATURES, st.sampled_from(["ceil", "round"]))
def test_a_higher_reward_never_gets_less(rewards, width, temperature, rounding):
    counts = rebase_allocation(rewards, width, temperature, rounding)
    ranked = sorted(zip(rewards, counts, strict=True), reverse=True)
    assert all(better[1] >= worse[1] for better, worse in pairwise(ranked))


@given(REWARDS, WIDTHS, st.randoms(use_true_random=False), st.sampled_from(["ceil", "round"]))
def test_the_order_of_leaves_matters_for_ties_alone(rewards, width, rng, rounding):
    shuffled = rng.sample(rewards, len(rewards))
    one = sorted(zip(rewards, rebase_allocation(rewards, width, rounding=rounding), strict=True))
    other = sorted(zip(shuffled, rebase_allocation(shuffled, width, rounding=rounding), strict=True))
    assert one == other


@given(st.integers(0, 300), st.integers(1, 50))
def test_an_even_split_is_even(width, num_leaves):
    counts = even_split(width, num_leaves)
    assert sum(counts) == width
    assert max(counts) - min(counts) <= 1
    assert list(counts) == sorted(counts, reverse=True)
