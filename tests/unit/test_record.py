"""Records: whole or not there, equal after a round trip, and never of two runs in one place."""

import asyncio
import json
import os

import pytest
from fake_engine import FakeEngine

from search.decision.verdict import Verdict
from search.errors import ConfigError, DataError
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import Rebase
from search.results.record import (
    RunDirectory,
    failed_record,
    problem_record,
    read_record,
    tree_from_record,
    tree_record,
)
from search.support.files import write_atomic
from search.types import Problem

PROBLEM = Problem("p/1 é", "Add 3.\n\n", "4")


@pytest.fixture(scope="module")
def outcome():
    driver = Driver(Rebase(), ModelWriter(FakeEngine()), None, width=6)
    return asyncio.run(driver.solve(PROBLEM, "Add 3.\n\n"))


def test_a_tree_survives_its_record(outcome):
    again = tree_from_record(tree_record(outcome.tree))
    assert list(again) == list(outcome.tree)
    assert again.num_finished == outcome.tree.num_finished
    assert all(again.children(n.id) == outcome.tree.children(n.id) for n in again)


def test_a_problem_record_is_read_back_equal(outcome, tmp_path):
    record = problem_record("abc", outcome, Verdict("4", True))
    run = RunDirectory(tmp_path / "run")
    run.save(record)
    assert read_record(run.record_file(PROBLEM.id)) == record
    again = record.outcome()
    assert (again.problem, list(again.tree), again.selections) == (PROBLEM, list(outcome.tree), outcome.selections)
    assert again.stats.unique_tokens == outcome.stats.unique_tokens and again.models == outcome.models
    assert run.load(PROBLEM, "abc") == record
    assert run.load(PROBLEM, "other") is None
    for changed in (Problem(PROBLEM.id, "Add 4.", "4"), Problem(PROBLEM.id, PROBLEM.text, "5")):
        with pytest.raises(
            ConfigError, match=r"holds a run of other data: problem p/1 é has another (text|reference) now"
        ):
            run.load(changed, "abc")


def test_failed_missing_and_broken_records_are_run_again(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.load(Problem("p", "x"), "h") is None
    run.save(failed_record("h", Problem("p", "x"), "the server died"))
    assert run.load(Problem("p", "x"), "h") is None
    run.record_file("p").write_text('{"version": 1, "conf')
    assert run.load(Problem("p", "x"), "h") is None
    with pytest.raises(DataError, match="not a problem's record"):
        read_record(run.record_file("p"))


def test_a_run_is_not_mixed_with_another(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open({"config_hash": "a", "settings": {"width": 4, "seed": 0}})
    run.open({"config_hash": "a", "settings": {"width": 4, "seed": 0}})
    with pytest.raises(ConfigError, match=r"other settings \(width: 4 there, 16 now\)"):
        run.open({"config_hash": "b", "settings": {"width": 16, "seed": 0}})


def test_what_an_earlier_version_kept_is_refused_with_one_line(tmp_path):
    """Its nodes drew by other seeds: gone on with, one run would mix two kinds of searches."""
    run = RunDirectory(tmp_path / "run")
    run.save(failed_record("a", Problem("p", "x"), "the server died"))
    file = run.record_file("p")
    file.write_text(file.read_text().replace('{"version":2,', '{"version":1,'))
    with pytest.raises(DataError, match="kept in layout 1, this program reads layout 2"):
        read_record(file)
    write_atomic(run.path / "run.json", json.dumps({"config_hash": "a", "settings": {}}))
    with pytest.raises(DataError, match="kept in layout 1, this program reads layout 2"):
        run.open({"config_hash": "a", "settings": {}})


def test_different_ids_never_share_a_file(tmp_path):
    run = RunDirectory(tmp_path)
    ids = ["a/b", "a_b", "a b", "..", "", "A" * 300, "A" * 301, "é"]
    files = {run.record_file(one) for one in ids}
    assert len(files) == len(ids) and all(file.parent == tmp_path / "problems" for file in files)


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    write_atomic(file, "old")

    def die(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(file, "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]  # noqa: PTH208


def test_links_are_followed_modes_kept_and_devices_left_alone(tmp_path):
    real = tmp_path / "real.json"
    write_atomic(real, "1")
    mask = os.umask(0)
    os.umask(mask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~mask
    real.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_atomic(link, "2")
    assert link.is_symlink() and real.read_text() == "2" and real.stat().st_mode & 0o777 == 0o640
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no ordinary file"):
        write_atomic(tmp_path / "pipe", "3")


def test_statistics_of_another_layout_are_not_read(tmp_path):
    run = RunDirectory(tmp_path)
    run.save(failed_record("h", Problem("p", "x"), "the server died"))
    file = run.record_file("p")
    file.write_text(file.read_text().replace('"num_nodes"', '"num_knots"'))
    assert run.load(Problem("p", "x"), "h") is None


def test_a_place_that_cannot_be_written_to_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_atomic(tmp_path / "file" / "x.json", "text")


@pytest.mark.parametrize("nodes", [(), "orphan"])
def test_a_record_that_is_no_tree_is_refused(outcome, nodes):
    record = tree_record(outcome.tree)
    broken = () if nodes == () else (record.nodes[0], record.nodes[1].model_copy(update={"parent": 5}))
    with pytest.raises(DataError):
        tree_from_record(record.model_copy(update={"nodes": broken}))
