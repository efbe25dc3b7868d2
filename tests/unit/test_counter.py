"""The counter-based random numbers: test vectors, and the vectorised form against the plain one."""

from search.engines.counter import splitmix64, uniform


def test_published_vectors_of_splitmix64():
    assert [splitmix64(0, i) for i in range(4)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
        0xF88BB8A8724C81EC,
    ]
    assert [splitmix64(1234567, i) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_our_own_vectors():
    assert uniform(0, 0) == 0.6524484863740322
    assert uniform(0, 1) == 0.7012121095215252
    assert uniform(2**64 - 1, 5) == 0.15403342580516755


def test_numbers_are_spread_evenly_over_seeds_and_over_indices():
    for numbers in ([uniform(seed, 3) for seed in range(10_000)], [uniform(3, i) for i in range(10_000)]):
        assert all(0 <= u < 1 for u in numbers)
        bins = [0] * 10
        for u in numbers:
            bins[int(u * 10)] += 1
        # Chi-square of 9 degrees of freedom; 27.9 is passed by chance once in 1,000, and the seeds are fixed.
        assert sum((n - 1000) ** 2 / 1000 for n in bins) < 27.9


def test_the_local_engine_draws_the_same_numbers():
    import numpy

    from search.engines.local import sampling

    seeds = [0, 1, 7, 123456789, 2**63, 2**64 - 1]
    indices = [0, 1, 2, 1000, 2**31, 5]
    drawn = sampling.uniforms(numpy.array(seeds, numpy.uint64), numpy.array(indices, numpy.int64))
    assert list(drawn) == [uniform(seed, index) for seed, index in zip(seeds, indices, strict=True)]
