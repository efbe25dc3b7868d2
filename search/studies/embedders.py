"""What embedders cost, what they tell apart, and what that does to an ETS search, on the mini family's dev problems."""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ets import Ets
from ets.coverage import cosine_distances
from ets.embedders import EmbeddingFeature, make_embedder
from prm import PrmScorer
from prm.hidden import HiddenFeature
from search.api import Search
from search.config import SearchSettings, build
from search.problems.data import load_problems
from search.protocols import FeatureProvider
from search.setup.registry import make_scorer
from search.setup.resolve import settle
from search.studies.measured import Measured, Models, measure, paired_difference
from search.tree import Node, SearchTree
from search.types import Problem

SIZES = (16, 64, 256)
"""Steps that are embedded in one call, all of them different."""

NAMES = ("tfidf", "minilm", "prm")

PAIRED_PROBLEMS = 6
QUANTILES = (0.1, 0.5, 0.9)

_NUMBER = re.compile(r"\d+")


def run(limit: int = 100, seed: int = 0, data: str = "mini:dev", width: int = 16) -> dict[str, Any]:
    """Compare the embedders that need no download, each cut where a level's own distances say.

    Args:
        limit: problems that are searched with each.
        seed: of all searches.
        data: the problems' source.
        width: of the searches.

    Returns:
        `figures`, for every embedder E: `ms_E_N` for N different steps in one call (not for prm, whose states are
        there already); `KIND_E_10`, `_50` and `_90`, deciles of the cosine distance of two candidates of one level
        by what they differ in (`wording`: other words, the same numbers; `result`: the last number alone; `numbers`:
        more); `accuracy_E`, `kv_ratio_E` (REBASE's `kv_tokens` over those of ETS), `accuracy_diff_E` with `_lo`
        and `_hi` against REBASE, and `feature_share_E`, the part of the wall time that embedding takes.
    """
    problems = load_problems(data, limit)
    models = Models.mini()
    watch = asyncio.run(_watch(models, problems[:PAIRED_PROBLEMS], width, seed))
    base = measure(models, problems, method="rebase", width=width, seed=seed)
    figures: dict[str, float | int] = {"accuracy_rebase": base.accuracy}
    for name in NAMES:
        figures |= _times(name, list(watch.texts)) if name != "prm" else {}
        for kind, distances in watch.pairs[name].items():
            deciles = np.quantile(distances, QUANTILES)
            figures |= {f"{kind}_{name}_{q * 100:.0f}": float(d) for q, d in zip(QUANTILES, deciles, strict=True)}
        figures |= _effect(name, measure(models, problems, method="ets", embedder=name, width=width, seed=seed), base)
        sys.stderr.write(f"{name}: accuracy {figures[f'accuracy_{name}']:.3f}\n")
    return {
        "data": data,
        "num_problems": len(problems),
        "width": width,
        "seed": seed,
        "figures": figures,
    }


class _Watch:
    """Stands in for a search's embedder and notes how far apart every embedder finds the candidates of a level."""

    name = "embedding"

    def __init__(self, hidden: HiddenFeature) -> None:
        self.providers: dict[str, FeatureProvider] = {
            name: hidden if name == "prm" else make_embedder(name) for name in NAMES
        }
        self.texts: dict[str, None] = {}
        self.pairs: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in self.providers}

    async def compute(self, tree: SearchTree, nodes: Sequence[Node]) -> Sequence[object]:
        """The reward model's vectors, as the search would have had them."""
        vectors = {name: await provider.compute(tree, nodes) for name, provider in self.providers.items()}
        self.texts.update(dict.fromkeys(node.text.strip() for node in nodes))
        for name, rows in vectors.items():
            distances = cosine_distances(np.asarray(rows, dtype=np.float64))
            for first, second in combinations(range(len(nodes)), 2):
                if nodes[first].text != nodes[second].text:
                    self.pairs[name][_kind(nodes[first].text, nodes[second].text)].append(
                        float(distances[first, second])
                    )
        return vectors["prm"]


def _kind(first: str, second: str) -> str:
    """What two steps differ in."""
    here, there = _NUMBER.findall(first), _NUMBER.findall(second)
    if here == there:
        return "wording"
    return "result" if here[:-1] == there[:-1] else "numbers"


async def _watch(models: Models, problems: Sequence[Problem], width: int, seed: int) -> _Watch:
    """Search with the reward model's states as embeddings, looking on."""
    scorer = make_scorer(settle(build(SearchSettings, {"method": "ets"})).settings, models.prm, models.policy.tokenizer)
    assert isinstance(scorer, PrmScorer)
    watch = _Watch(HiddenFeature(scorer))
    policy = Ets(reduce="prod")
    search = Search(models.policy, scorer, policy, width, features=[watch], seed=seed)
    for problem in problems:
        await search.asolve(problem)
    return watch


def _times(name: str, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one call with different texts, median of three after a first that is not counted."""
    provider = make_embedder(name)
    assert isinstance(provider, EmbeddingFeature)
    figures = {}
    for size in SIZES:
        chosen = [f"{texts[i % len(texts)]} {i}" for i in range(size)]
        times = []
        for _ in range(4):
            start = time.perf_counter()
            provider.embedder.embed(chosen)
            times.append(1000 * (time.perf_counter() - start))
        figures[f"ms_{name}_{size}"] = statistics.median(times[1:])
    return figures


def _effect(name: str, measured: Measured, base: Measured) -> dict[str, float]:
    return {
        f"accuracy_{name}": measured.accuracy,
        f"kv_ratio_{name}": base.kv_tokens / measured.kv_tokens,
        **paired_difference(measured, base).figures(f"accuracy_diff_{name}"),
        f"feature_share_{name}": sum(result.stats.seconds_features for result in measured.results)
        / sum(result.stats.seconds for result in measured.results),
    }
