"""The benches of ETS: what they report, on few and small cases."""

import json
from types import SimpleNamespace

import pytest

from search.studies import embedders, methods, prune
from search.studies.measured import Measured
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Selected, Step


def test_bench_prune_reports_every_solver():
    report = prune.run(repeats=1, sizes=(16,), recorded=False)
    figures = report["figures"]
    assert {"cbc_over_highs_16", "highs_ms_16", "lp_ms_16", "cbc_ms_16", "tree_ms_16", "select_ms_16"} < figures.keys()
    assert figures["max_gap"] <= 1e-9
    assert all(value >= 0 for value in figures.values())
    assert [row["source"] for row in report["rows"]] == ["synthetic, depth 3", "synthetic, depth 8"]
    assert json.loads(json.dumps(report)) == report


def test_synthetic_trees_depend_on_the_seed_alone():
    one, same, other = (prune._synthetic(16, 3, seed).problem for seed in (0, 0, 1))
    assert (one.leaf_values == same.leaf_values).all() and (one.clusters == same.clusters).all()
    assert one.leaf_values.tolist() != other.leaf_values.tolist()
    assert one.num_leaves == 16


def kept(*nodes):
    return Selected(nodes, nodes)


def outcome(right, kv_tokens, seconds):
    stats = SimpleNamespace(kv_tokens_mean=kv_tokens, seconds_select=0.1)
    tree = SearchTree("t", range(int(kv_tokens)), "prompt")
    results = [SimpleNamespace(correct=bool(one), stats=stats, tree=tree, selections=(kept(ROOT),)) for one in right]
    return Measured(results, [seconds])


def test_a_radix_cache_holds_equal_siblings_once():
    tree = SearchTree("t", range(10), "prompt")

    def grow(parent, *ids):
        node = tree.add_child(parent)
        tree.write(Step(node, ids, "s", FinishReason.STOP, "m"))
        return node

    one, same, other = grow(ROOT, 1, 2), grow(ROOT, 1, 2), grow(ROOT, 1, 3)
    below = [grow(one, 7), grow(same, 7), grow(other, 7), grow(same, 8)]
    assert methods.radix_tokens_mean(SimpleNamespace(tree=tree, selections=(kept(one, same), kept(other)))) == 12
    assert methods.radix_tokens_mean(SimpleNamespace(tree=tree, selections=(kept(*below),))) == 10 + 2 + 2 + 1 + 1 + 1
    assert methods.radix_tokens_mean(SimpleNamespace(tree=tree, selections=())) == 0


def test_bench_methods_compares_with_rebase_in_pairs():
    figures = methods._compare(
        {
            "rebase": outcome([1, 1, 0, 1], 200.0, 8.0),
            "ets-kv": outcome([1, 1, 0, 0], 100.0, 4.0),
            "ets": outcome([1, 1, 1, 1], 125.0, 5.0),
        },
        64,
    )
    assert figures["accuracy_64_rebase"] == 0.75
    assert figures["accuracy_64_ets"] == 1
    assert (figures["kv_ratio_64"], figures["kv_ratio_64_ets_kv"]) == (1.6, 2.0)
    assert (figures["kv_ratio_radix_64"], figures["kv_ratio_radix_64_ets_kv"]) == (1.6, 2.0)
    assert (figures["speedup_64"], figures["speedup_64_ets_kv"]) == (1.6, 2.0)
    assert (figures["accuracy_diff_64"], figures["accuracy_diff_64_ets_kv"]) == (0.25, -0.25)
    assert figures["accuracy_diff_64_lo"] == 0 and figures["accuracy_diff_64_hi"] >= 0.5
    assert figures["accuracy_diff_64_hi_ets_kv"] == 0
    assert figures["coverage_gain_64"] == 0.5
    assert figures["select_share_64"] == pytest.approx(0.08)


def test_bench_embedders_compares_what_needs_no_download(monkeypatch):
    monkeypatch.setattr(embedders, "SIZES", (4,))
    monkeypatch.setattr(embedders, "PAIRED_PROBLEMS", 1)
    figures = embedders.run(limit=2, width=4)["figures"]
    for name in ("tfidf", "minilm", "prm"):
        assert figures[f"kv_ratio_{name}"] > 0.5
        assert 0 <= figures[f"numbers_{name}_10"] <= figures[f"numbers_{name}_50"] <= figures[f"numbers_{name}_90"]
    assert figures["ms_minilm_4"] > figures["ms_tfidf_4"] > 0


def test_what_two_steps_differ_in():
    assert embedders._kind("She buys 5, so 1 + 5 = 6.", "He buys 5, now 1 + 5 = 6.") == "wording"
    assert embedders._kind("She buys 5, so 1 + 5 = 6.", "She buys 5, so 1 + 5 = 7.") == "result"
    assert embedders._kind("She buys 5, so 1 + 5 = 6.", "She buys 5, so 2 + 5 = 7.") == "numbers"
    assert embedders._kind("She buys 5.", "She buys 5, so 2 + 5 = 7.") == "numbers"
