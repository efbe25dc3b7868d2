"""The bench of routed chains, one problem at a time and several side by side."""

import pytest

from search.studies.pipeline import run


@pytest.mark.parametrize(("concurrency", "turns"), [(1, 4), (3, 2)])
def test_chains_are_the_same_however_many_run_side_by_side(concurrency, turns, monkeypatch):
    rounds = []
    bootstrap = "search.studies.pipeline.bootstrap"
    monkeypatch.setattr(bootstrap, lambda seconds: rounds.append(len(seconds)) or seconds)

    figures = run(limit=4, repeats=1, router="probe", data="mini:dev", concurrency=concurrency)["figures"]

    assert rounds == [turns]
    assert figures["num_problems"] == figures["pipeline_equal"] == 4
    assert 0 < figures["target_share"] < 1
    assert figures["seconds_ratio_plain_over_target"] == pytest.approx(
        figures["seconds_plain"] / figures["seconds_target"]
    )
