"""The embedder that reads the reward model itself: what it reads, how often, and where it is refused."""

import asyncio

import numpy as np
import pytest
from fake_engine import FakeEngine
from markov import LabelModel

from ets.coverage import cluster_steps
from ets.embedders import make_embedder
from prm import LabelTokenCodec, PrmConfig, PrmScorer
from prm.hidden import HiddenFeature
from search.api import Search
from search.errors import ConfigError
from search.protocols import FeatureProvider
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step


class HiddenEngine(FakeEngine):
    """Its hidden state is the number of tokens read and the last of them; counts what is read."""

    reads = 0

    async def read(self, prefix, what, layers=()):
        assert what == "hidden" and not layers
        self.reads += 1
        return (float(len(prefix.ids)), float(prefix.ids[-1]))


def scorer_on(engine):
    return PrmScorer(engine, LabelTokenCodec(engine.tokenizer, PrmConfig()))


def grow(tree, tokenizer, parent, text):
    node = tree.add_child(parent)
    return tree.write(Step(node, tokenizer.encode(text), text, FinishReason.STOP, "w"))


def test_a_step_is_read_at_its_end_and_equal_paths_once():
    engine = HiddenEngine(LabelModel(lambda ids: 0.5))
    tokenizer = engine.tokenizer
    tree = SearchTree("t#0", tokenizer.encode("Add 3.\n\n"), "Add 3.\n\n", "Add 3.")
    above = [grow(tree, tokenizer, ROOT, text) for text in ("Add 4.\n\n", "Take 1.\n\n Take 1.\n\n")]
    leaves = [grow(tree, tokenizer, node.id, "Add 9.\n\n") for node in (above[0], above[0], above[1])]
    provider = HiddenFeature(scorer_on(engine))
    assert isinstance(provider, FeatureProvider)
    vectors = asyncio.run(provider.compute(tree, leaves))
    lengths = [sum(len(node.ids) for node in tree.path(leaf.id)) for leaf in leaves]
    assert [vector.tolist() for vector in vectors] == [[length, leaves[0].ids[-1]] for length in lengths]
    assert engine.reads == 2
    # The text alone would make one cluster of two of these; what stands above tells them apart.
    texts = ["Add 9.", "Add 9.", "Add 9.", "Take 7."]
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert cluster_steps(texts, [east, east, north, north], 0.05).labels.tolist() == [0, 0, 1, 1]


def test_where_no_reward_model_gives_them_it_is_refused_before_anything_loads():
    with pytest.raises(ConfigError, match="embedder prm needs a reward model"):
        Search(prm=None, method="ets", embedder="prm", vote="majority")
    with pytest.raises(ConfigError, match="needs a scorer"):
        make_embedder("prm")
    # Without coverage nothing is embedded, so nothing is wrong.
    Search(prm=None, method="ets-paper", embedder="prm", vote="majority", coverage_weight=0.0)


def test_a_search_clusters_by_the_reward_model_and_computes_next_to_nothing_for_it():
    with Search(method="ets", width=8, embedder="prm") as by_prm, Search(method="ets-kv", width=8) as without:
        stats = by_prm.solve("Ann has 35 books. She buys 19 more. She drops 12. How many books are there now?").stats
        plain = without.solve("Ann has 35 books. She buys 19 more. She drops 12. How many books are there now?").stats
    assert stats.num_prm_calls > plain.num_prm_calls
    assert stats.prm_tokens is not None
    assert stats.prm_tokens <= 1.05 * stats.prm_unique_tokens
