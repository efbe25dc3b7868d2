"""Random numbers by a counter: one (seed, index) gives one number, whatever else is drawn around it.

Every engine of ours samples with these: token `index` of a step by u = uniform(seed, index) and the inverse of
the cumulative distribution, so a step depends on its seed and its prefix alone. The generator is SplitMix64
(Steele, Lea, Flood 2014); a seed's numbers are the stream that starts at the first output of the seed's own
stream, so that neighbouring seeds do not give shifted copies of one stream. Vectorised forms must agree:

    splitmix64(0, 0) = 0xE220A8397B1DCDAF    splitmix64(1234567, 0) = 6457827717110365317
    splitmix64(0, 1) = 0x6E789E6AA1B965F4    splitmix64(2**64 - 1, 0) = 0xE4D971771B652C20
"""

from __future__ import annotations

MASK64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def splitmix64(seed: int, index: int) -> int:
    """Number `index`, from 0, of the SplitMix64 stream of `seed`: 64 bits, unsigned."""
    z = (seed + (index + 1) * GOLDEN_GAMMA) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def uniform(seed: int, index: int) -> float:
    """Number `index` of a seed as a float in [0, 1), by its upper 53 bits."""
    return (splitmix64(splitmix64(seed, 0), index) >> 11) * 2.0**-53
