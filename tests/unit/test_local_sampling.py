"""Sampling against its definition: exact masses, tie rules, and independence of what else is drawn."""

import numpy as np
import pytest
import torch

from search.engines.local.sampling import BLOCK_TOKENS, sample, uniforms
from search.studies.sampling import reference


def test_uniforms_are_a_fixed_function_and_look_uniform():
    seeds = np.array([0, 1, 2**64 - 1], np.uint64)
    first = uniforms(seeds, np.zeros(3, np.int64))
    assert first.tolist() == uniforms(seeds, np.zeros(3, np.int64)).tolist()
    # Fixed for ever: a saved run must be repeatable by a later version.
    assert first.tolist() == pytest.approx([0.6524484863740322, 0.36818951565166946, 0.3662420901697574], abs=1e-15)
    many = uniforms(np.full(20_000, 7, np.uint64), np.arange(20_000))
    assert abs(many.mean() - 0.5) < 0.01
    assert np.abs(np.histogram(many, 20, (0, 1))[0] - 1000).max() < 150
    neighbours = uniforms(np.arange(20_000, dtype=np.uint64), np.zeros(20_000, np.int64))
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]) < 0.03


def one(logits: list[float], temperature: float, top_p: float, u: float) -> int:
    numbers = np.array([u])
    drawn = sample(torch.tensor([logits]), np.array([temperature]), np.array([top_p]), numbers, within=numbers)
    return int(drawn.ids[0])


def test_sample_inverts_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).tolist()
    assert [one(logits, 1.0, 1.0, u) for u in (0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2**-53)] == [0, 0, 1, 1, 2, 2]
    assert [one(logits, 0.0, 1.0, u) for u in (0.0, 0.99)] == [0, 0]
    assert one([1.0, 3.0, 3.0], 0.0, 1.0, 0.9) == 1, "the lowest id among equals"
    assert [one(logits, 1.0, 0.5, u) for u in (0.0, 0.99)] == [0, 0], "the mass is reached by one token"
    assert [one(logits, 1.0, 0.6, u) for u in (0.6, 0.7, 0.99)] == [0, 1, 1], "lower ids first among equals"
    assert one([0.0, float("-inf"), 0.0], 1.0, 1.0, 0.5) == 2, "no mass, never drawn"
    assert one([0.0, 1.0], 1e-4, 1.0, 0.999) == 1
    for least in (5e-324, 1e-309, 1e-308):
        assert [one([0.0, 3.0, 1.0], least, mass, u) for mass in (5e-324, 1.0) for u in (0.0, 0.99)] == [1] * 4
    mixed = sample(
        torch.tensor([[0.0, 1.0], [0.0, 1.0], [5.0, 0.0]]),
        np.array([0.0, 1.0, 1.0]),
        np.array([1.0, 1.0, 0.5]),
        np.array([0.1, 0.1, 0.99]),
    )
    assert mixed.ids.tolist() == [1, 0, 0]
    for bad in ([float("nan"), 0.0], [float("-inf")] * 2, [float("inf"), 0.0]):
        with pytest.raises(FloatingPointError):
            one(bad, 1.0, 1.0, 0.5)


def logits_of(vocab: int, num_rows: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn((num_rows, vocab), generator=generator)).to(dtype)


def measures(draw, count: int) -> np.ndarray:
    """The measure of the numbers that draw each of `count` things, to 1e-8: the ends of its interval, by halving."""
    low, high = np.zeros(count), np.ones(count)
    for _ in range(27):
        middle = (low + high) / 2
        beyond = draw(middle) > np.arange(count)
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.diff(high, prepend=0.0)


def masses(logits: torch.Tensor, temperature: float, top_p: float) -> np.ndarray:
    """The measure of the pairs of numbers that draw each token: its block's by the first, its own by the second."""
    num_blocks = -(-len(logits) // BLOCK_TOKENS)

    def draw(u, within):
        ones = np.ones(len(u))
        return sample(logits.expand(len(u), -1), temperature * ones, top_p * ones, u, within=within).ids

    blocks = measures(lambda u: draw(u, np.zeros(num_blocks)) // BLOCK_TOKENS, num_blocks)
    found = np.zeros(num_blocks * BLOCK_TOKENS)
    inside = np.cumsum(blocks) - blocks / 2
    for block in np.flatnonzero(blocks > 1e-8):
        u = np.full(BLOCK_TOKENS, inside[block])
        place = slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS)
        found[place] = blocks[block] * measures(lambda v, u=u: draw(u, v) % BLOCK_TOKENS, BLOCK_TOKENS)
    return found[: len(logits)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("vocab", "temperature", "top_p"), [(2 * BLOCK_TOKENS + 77, 0.6, 1.0), (BLOCK_TOKENS + 30, 1.0, 0.8)]
)
def test_each_token_is_drawn_by_its_probability_of_all_numbers(vocab, temperature, top_p, dtype):
    logits = logits_of(vocab, dtype=dtype)[0]
    logits[100:110] = -torch.inf
    wanted = torch.softmax(logits.double() / temperature, -1).numpy()
    order = np.lexsort((np.arange(vocab), -wanted))
    before = np.cumsum(wanted[order]) - wanted[order]
    wanted[order[before >= top_p]] = 0.0
    wanted /= wanted.sum()
    found = masses(logits, temperature, top_p)
    # The ends of the intervals carry the float32 error of the blocks' masses, 1e-7.
    assert np.abs(found - wanted).max() < 2e-7
    assert (found[wanted == 0.0] < 1e-8).all()


def test_a_vocabulary_of_one_block_is_drawn_as_in_float64():
    logits = logits_of(347, 256)
    u = np.random.default_rng(1).random(256)
    for temperature in (1.0, 0.7):
        settings = (logits, np.full(256, temperature), np.ones(256), u)
        assert sample(*settings).ids.tolist() == reference(*settings).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", [347, 5 * BLOCK_TOKENS + 3, 151_936])
def test_a_row_gives_the_same_token_in_every_batch_and_with_every_number_of_threads(vocab, dtype):
    logits = logits_of(vocab, 64, dtype=dtype)
    rng = np.random.default_rng(2)
    temperature, top_p = rng.choice([0.0, 0.3, 1.0, 1.7], 64), rng.choice([0.5, 0.9, 1.0, 1.0], 64)
    u = rng.random(64)
    before = torch.get_num_threads()
    found = set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for size in (1, 2, 3, 17, 64):
                order = rng.permutation(64)
                ids, logprobs = np.zeros(64, np.int64), np.zeros(64)
                for first in range(0, 64, size):
                    rows = order[first : first + size]
                    drawn = sample(logits[rows], temperature[rows], top_p[rows], u[rows], logprobs=True)
                    ids[rows], logprobs[rows] = drawn
                found.add((ids.tobytes(), logprobs.tobytes()))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_numbers_next_to_a_boundary_fall_on_the_same_side_in_every_batch():
    """What a sum in another order would change: the number at which one block becomes the next, to the last bit."""
    logits = logits_of(3 * BLOCK_TOKENS, 8, dtype=torch.bfloat16)
    ones = np.ones(8)
    low, high = np.zeros(8), np.ones(8)
    target = sample(logits, ones, ones, 0.5 * ones).ids // BLOCK_TOKENS
    for _ in range(60):
        middle = (low + high) / 2
        beyond = sample(logits, ones, ones, middle).ids // BLOCK_TOKENS > target
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    for row in range(8):
        drawn = [sample(logits[[row]], ones[:1], ones[:1], np.array([u])).ids[0] for u in (low[row], high[row])]
        alone = [token // BLOCK_TOKENS for token in drawn]
        assert alone[0] <= target[row] < alone[1]


def test_log_probabilities_are_the_raw_ones_whatever_the_temperature_and_nucleus():
    logits = logits_of(4 * BLOCK_TOKENS + 5, 12)
    temperature = np.tile([0.0, 0.5, 1.0], 4)
    top_p = np.repeat([1.0, 0.7], 6)
    u = np.random.default_rng(3).random(12)
    drawn = sample(logits, temperature, top_p, u, logprobs=True)
    wanted = torch.log_softmax(logits.double(), -1)[range(12), drawn.ids]
    assert drawn.logprobs == pytest.approx(wanted.numpy(), abs=1e-6)
    plain = sample(logits, temperature, top_p, u)
    assert plain.logprobs is None
    assert plain.ids.tolist() == drawn.ids.tolist()
    greedy = np.flatnonzero(temperature == 0)
    alone = sample(logits[greedy], temperature[greedy], top_p[greedy], u[greedy], logprobs=True)
    assert alone.ids.tolist() == drawn.ids[greedy].tolist(), "nothing else is drawn beside them"
    assert alone.logprobs.tolist() == drawn.logprobs[greedy].tolist()


def test_ties_go_to_the_lowest_id_over_blocks():
    logits = torch.zeros((1, 3 * BLOCK_TOKENS + 9))
    for at in (3 * BLOCK_TOKENS + 2, 2 * BLOCK_TOKENS - 1, 2 * BLOCK_TOKENS + 4):
        logits[0, at] = 5.0
    assert one(logits[0].tolist(), 0.0, 1.0, 0.3) == 2 * BLOCK_TOKENS - 1
    flat = [0.0] * (2 * BLOCK_TOKENS)
    assert {one(flat, 1.0, 0.25, u) for u in (0.0, 1 - 2**-53)} == {0, BLOCK_TOKENS // 2 - 1}


def test_the_logits_last_digits_change_hardly_a_token():
    """What lies beside a row moves its logits' last digits; with them, few tokens of a real vocabulary's long tail."""
    logits = logits_of(49_152, 64) * (2.5 / 3)
    moved = logits + 1e-5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    rng, ones = np.random.default_rng(0), np.ones(64)
    numbers = [rng.random(64) for _ in range(16)]
    changed = [(sample(logits, ones, ones, u).ids != sample(moved, ones, ones, u).ids).sum() for u in numbers]
    assert sum(changed) <= 3, "of 1,024; one number for both levels changed about 9"


def test_the_second_number_is_as_good_as_independent_of_the_first():
    u = np.random.default_rng(4).random(4000)
    flat = torch.zeros((4000, 4 * BLOCK_TOKENS))
    ids = sample(flat, np.ones(4000), np.ones(4000), u).ids
    table = np.histogram2d(ids // BLOCK_TOKENS, ids % BLOCK_TOKENS, bins=(4, 8), range=((0, 4), (0, BLOCK_TOKENS)))[0]
    assert np.abs(table - 125).max() < 50
