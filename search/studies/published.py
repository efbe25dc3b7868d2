"""The papers' own figures, as far as they are at hand; a cell that is not known is None and is printed as such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ETS_KV_REDUCTION = 1.8
ETS_SPEEDUP = 1.4
ETS_SOURCE = (
    "ETS (arXiv 2502.13575), headline: 1.8x lower average KV-cache size during search than REBASE and 1.4x throughput "
    "at minimal loss of accuracy (MATH500, H100 NVL, SGLang). No table of that paper was at hand: its accuracies are "
    "unknown."
)


class Baseline(NamedTuple):
    """A row of REBASE's Table 4 (arXiv 2408.00724): percent right on MATH500 and GSM8K."""

    search: str
    vote: str
    math500: float
    gsm8k: float


REBASE_WIDTH: Mapping[str, int] = {"mistral-7b": 32, "llemma-7b": 32, "llama3-8b-instruct": 32, "llemma-34b": 8}


def _rows(*values: tuple[float, float]) -> tuple[Baseline, ...]:
    names = (
        ("greedy", "-"),
        ("sampling", "majority"),
        ("sampling", "best"),
        ("sampling", "weighted"),
        ("rebase", "majority"),
        ("rebase", "best"),
        ("rebase", "weighted"),
    )
    return tuple(Baseline(*name, *pair) for name, pair in zip(names, values, strict=True))


REBASE_TABLE_4: Mapping[str, tuple[Baseline, ...]] = {
    "mistral-7b": _rows(
        (28.6, 77.9), (36.1, 85.7), (40.3, 89.4), (39.7, 89.1), (44.1, 88.8), (45.4, 89.4), (45.0, 89.8)
    ),
    "llemma-7b": _rows(
        (30.0, 68.5), (41.0, 80.0), (41.7, 85.6), (43.5, 85.4), (46.1, 86.1), (44.1, 86.9), (46.8, 87.3)
    ),
    "llama3-8b-instruct": _rows(
        (29.6, 79.0), (35.4, 84.6), (39.7, 88.5), (39.5, 88.6), (45.2, 88.3), (45.5, 88.7), (43.7, 89.1)
    ),
    "llemma-34b": _rows(
        (33.0, 78.4), (39.9, 84.3), (40.4, 86.7), (41.0, 86.0), (43.9, 86.1), (43.6, 86.9), (42.9, 86.9)
    ),
}


class Compute(NamedTuple):
    """A row of REBASE's Table 1: weighted vote on MATH500; FLOPs a problem set."""

    model: str
    search: str
    width: int
    flops: float
    accuracy: float


REBASE_TABLE_1 = (
    Compute("mistral-7b", "sampling", 256, 8.70e14, 42.8),
    Compute("mistral-7b", "rebase", 32, 1.36e14, 45.0),
    Compute("llemma-7b", "sampling", 256, 10.0e14, 45.5),
    Compute("llemma-7b", "rebase", 32, 1.48e14, 46.8),
    Compute("llemma-34b", "sampling", 64, 12.1e14, 46.7),
    Compute("llemma-34b", "rebase", 32, 7.08e14, 49.2),
)


class Ablation(NamedTuple):
    """A row of Arbitrage's router ablations (arXiv 2512.05033): rank correlation with D, percent right by class."""

    spearman: float
    accuracy_0: float
    accuracy_1: float


ABLATIONS: Mapping[str, Ablation] = {
    "2-class, annotated history": Ablation(0.1508, 70.04, 72.96),
    "4-class": Ablation(0.1417, 64.24, 80.53),
    "4-class ordinal": Ablation(0.1355, 62.00, 79.77),
    "10-class": Ablation(0.1337, 71.29, 71.77),
    "history not annotated": Ablation(0.1305, 73.06, 69.58),
    "balanced by downsampling": Ablation(0.1673, 63.28, 64.80),
    "no downsampling": Ablation(0.1587, 77.34, 49.62),
}
ARBITRAGE_SPEEDUPS: Mapping[str, float] = {"math500, 4-bit 8B/8B": 1.62, "olympiadbench, 1B/8B": 1.97}
"""Latency of RSD over Arbitrage's at matched accuracy, at most."""

RSD_WASTE = 0.40
"""Share of all steps that RSD regenerates without gain at 70% deferral, as Arbitrage's authors found."""
