"""The contract of writing ahead: on every engine, for every method, writer and way to stop, the record is the same."""

import asyncio
import json
import random
import re
from collections import Counter
from contextlib import ExitStack
from itertools import cycle

import pytest
from fake_engine import FakeEngine
from fake_server import Script, serving
from markov import LabelModel, story_model
from routing import Parts, RatingStory, routed_head
from story_checkpoints import POSITIONS, build_judge, build_writer
from virtual_clock import Embedded

from search.ahead import AheadBuffer
from search.api import Search
from search.catalogue import METHODS, ROUTERS
from search.config import SearchSettings
from search.engines.local import LocalEngine
from search.engines.remote import SglangEngine
from search.engines.remote import engine as remote
from search.engines.remote.http import RequestLimits
from search.runs.evaluation import flush_caches
from search.setup.notes import seed_notes
from search.setup.registry import make_policy
from search.types import Problem

DRAFT, TARGET = story_model(right=0.2, answer=0.2), RatingStory(story_model(right=0.8, answer=0.3))
PROBLEMS = [Problem(text, text, "4") for text in ("Add 3.", "Take 4.")]

LEVEL = [name for name in METHODS if make_policy(SearchSettings(method=name), "last").pace == "level"]
"""Methods whose leaves wait for each other."""

MACHINE = frozenset({"tokens_thrown", "kv_tokens_engine_peak", "kv_tokens_prm_peak", "ahead_tokens"})
"""What a record says of the machine: how much was thrown away, and what it really held."""

COMPUTED = frozenset({"computed_tokens", "prm_tokens"})
"""A server's cache shares what begins alike and is there in time, so what it computes moves with what stands beside: in
these small trees by a prompt or so."""

ATTEMPTS = frozenset({"policy_tokens", "sampled_tokens"})
"""What a server wrote and could not tell to the end is counted as well."""


WAIT = 0.08
"""Seconds by which a server answers every other request later: time to write ahead, however fast the machine is."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A draft, a target, a reward model and a router."""
    made = [tmp_path_factory.mktemp(name) for name in ("draft", "target", "prm", "router")]
    build_writer(made[0], DRAFT, 0)
    build_writer(made[1], TARGET.story, 1)
    build_judge(made[2])
    build_judge(made[3], head=True)
    return list(map(str, made))


class Bench:
    """Engines of one kind, and searches over them, all on one event loop."""

    def __init__(self, kind, engines):
        self.kind, self.parts = kind, Parts(engines=engines)
        self.runner = asyncio.Runner()

    def search(self, writer="model", method="rebase", **settings):
        """A search of the policy alone, which is the draft, or under a router."""
        values = {
            "width": 8,
            "max_depth": 5,
            "prompt": "plain",
            "system_prompt": "",
            **METHODS[method].fixed,
            **settings,
        }
        scorer = None if values.pop("prm", "") == "none" else self.parts.scorer()
        policy = self.parts.draft if writer == "model" else self.parts.writer(writer)
        features = [Embedded()] if METHODS[method].embeds else []
        return Search(policy, scorer, method, features=features, **values)

    async def solve_all(self, search):
        """All problems side by side."""
        await flush_caches(search)  # a server would know the texts of the search before
        return await asyncio.gather(*(search.asolve(problem) for problem in PROBLEMS))

    def solve(self, *parts, **settings):
        return self.runner.run(self.solve_all(self.search(*parts, **settings)))

    def close(self):
        for engine in self.parts.engines:
            self.runner.run(engine.aclose())
        self.runner.close()


def served(stack, folders, limits=None, **options):
    """The models on four fake servers, which do with seeds what the real server does on a GPU."""
    scripts = [Script(POSITIONS, seeds=True, **options) for _ in range(2)]
    scripts += [Script(POSITIONS, **options), Script(POSITIONS, head=routed_head, **options)]
    models = [DRAFT, TARGET, LabelModel(), LabelModel()]
    servers = [stack.enter_context(serving(*pair)) for pair in zip(scripts, models, strict=True)]
    engines = [
        SglangEngine.connect(folder, server.url, limits=limits) for folder, server in zip(folders, servers, strict=True)
    ]
    return engines, scripts


@pytest.fixture(scope="module", params=["fake", "local", "sglang"])
def bench(request):
    with ExitStack() as stack:
        if request.param == "fake":
            parts = Parts()
            parts.draft, parts.target = FakeEngine(DRAFT), FakeEngine(TARGET)
            engines = parts.engines
        elif request.param == "local":
            engines = [LocalEngine.load(folder) for folder in request.getfixturevalue("folders")]
        else:
            engines, scripts = served(stack, request.getfixturevalue("folders"))
            for script in scripts[:2]:
                script.statuses = cycle(("", WAIT))
        made = Bench(request.param, engines)
        yield made
        made.close()


@pytest.fixture
def begun(monkeypatch):
    """Steps that were asked ahead."""
    asked, begin = [], AheadBuffer.begin
    monkeypatch.setattr(AheadBuffer, "begin", lambda *one: asked.append(one) or begin(*one))
    return asked


def kept(result, left_out):
    """All that a record says, line by line: nodes, answer, vote, selections, notes, costs; but no seconds."""
    record = json.loads(result.to_record("").model_dump_json())
    tree, stats, models = record.pop("tree"), record.pop("stats"), record.pop("models")
    parts = [record, *tree["nodes"], stats, *({"role": role, **cost} for role, cost in models.items())]
    return [
        json.dumps({key: value for key, value in part.items() if key not in left_out and "seconds" not in key})
        for part in parts
    ]


_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+(?:e-?[0-9]+)?")


def check_same(kind, one, other, left_out=MACHINE):
    """Hold two searches of a problem against each other."""
    if kind == "sglang":
        left_out |= COMPUTED
        for name in COMPUTED:
            assert getattr(other.stats, name) == pytest.approx(getattr(one.stats, name), rel=0.1, abs=40)
    ours, theirs = kept(one, left_out), kept(other, left_out)
    if kind == "local":
        # The last digits of float32 move with what else is in a batch, and with them what a reason says of a reward.
        numbers = [[float(number) for line in lines for number in _DECIMAL.findall(line)] for lines in (ours, theirs)]
        ours, theirs = ([_DECIMAL.sub("x", line) for line in lines] for lines in (ours, theirs))
        # Log-probabilities are kept to five decimals, so the last of these may be either.
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-5, abs=1.1e-5)
    for our, their in zip(ours, theirs, strict=True):
        assert our == their


def check(bench, begun, writer="model", **settings):
    """Search all problems with and without."""
    plain = bench.solve(writer, **settings)
    assert not begun
    ahead = bench.solve(writer, **settings, speculate=1.0)
    for one, other in zip(plain, ahead, strict=True):
        assert one.stats.num_finished and not one.stats.tokens_thrown
        check_same(bench.kind, one, other)
    return plain


@pytest.mark.parametrize("writer", ["model", "rsd"])
@pytest.mark.parametrize("method", LEVEL)
def test_every_method_that_compares(bench, begun, method, writer):
    check(bench, begun, writer, method=method)
    assert begun


def test_a_routers_server_draws_nothing_so_its_seeds_do_not_matter(folders):
    with ExitStack() as stack:
        engines, _ = served(stack, folders)
        bench = Bench("sglang", engines)
        assert bench.parts.learned.info.seeds == "none"
        search = bench.search("arbitrage", speculate=1.0)
        assert search.driver.speculates and not seed_notes(search.driver)
        bench.close()


@pytest.mark.parametrize("router", [kind for kind in ROUTERS if kind != "rsd"])
def test_under_every_router(bench, begun, router):
    check(bench, begun, router)
    assert begun


STOPS = {
    "spent": {"until": "spent"},
    "decided": {"vote": "majority"},
    "confident": {"confidence": 0.7},
    "best": {"vote": "best"},
    "lookahead": {"lookahead": 2},
    "a share of the places": {"speculate": 0.3},
    "short": {"max_tokens": 14, "max_depth": 3},
}


@pytest.mark.parametrize("settings", STOPS.values(), ids=STOPS)
def test_however_a_search_ends_and_is_scored(bench, begun, settings):
    settings = {"method": "ets", "width": 12} | settings
    share = settings.pop("speculate", 1.0)
    plain, ahead = (bench.solve(**settings, speculate=one) for one in (None, share))
    for one, other in zip(plain, ahead, strict=True):
        check_same(bench.kind, one, other)
    assert begun
    if "confidence" in settings and bench.kind == "fake":
        assert any("certain" in note for one in plain for note in one.notes)


FLAT = [{"method": name} for name in METHODS if name not in LEVEL]
ROLLING = [{"method": name, "frontier": "rolling"} for name in METHODS if METHODS[name].rolls]


@pytest.mark.parametrize("settings", [*FLAT, {"method": "best-of-n", "begin": "needed"}, *ROLLING], ids=str)
def test_where_no_leaf_waits_there_is_nothing_to_write_ahead(begun, settings):
    bench = Bench("fake", Parts().engines)
    check(bench, begun, **settings)
    assert not begun and "speculate" in bench.search(**settings, speculate=1.0).ignored
    bench.close()


@pytest.mark.parametrize("writer", ["model", "rsd"])
def test_searches_that_are_cancelled_beside_one_change_nothing_of_it(bench, writer):
    plain = bench.solve(writer, method="mcts")
    luck = random.Random(0)

    async def beside():
        search = bench.search(writer, method="mcts", speculate=1.0)
        # None asks the same: a server would answer it out of what it computed for the other.
        others = [asyncio.create_task(search.asolve(Problem(f"other {n}", f"Halve {n}."))) for n in range(4)]

        async def cancel(task):
            for _ in range(luck.randrange(400)):
                await asyncio.sleep(0)
            await asyncio.sleep(luck.choice([0.0, 0.01, 0.05]))
            task.cancel()

        ahead, *_ = await asyncio.gather(bench.solve_all(search), *map(cancel, others))
        ended = await asyncio.gather(*others, return_exceptions=True)
        return ahead, sum(isinstance(one, asyncio.CancelledError) for one in ended)

    ahead, num_cancelled = bench.runner.run(beside())
    assert num_cancelled
    for one, other in zip(plain, ahead, strict=True):
        check_same(bench.kind, one, other)


@pytest.mark.parametrize("writer", ["model", "rsd"])
def test_servers_that_fail_in_passing_and_are_slow_change_nothing_that_is_kept(folders, writer, monkeypatch):
    monkeypatch.setattr(remote, "_pause", lambda attempt, error: error.wait_seconds)
    luck, wronged = random.Random(1), Counter()

    def faults():
        while True:
            fault = luck.choices(["", 0.02, 503, 429, "cut", "nonsense", "broken"], [20, 4, 1, 1, 1, 1, 3])[0]
            wronged[fault] += 1
            yield fault

    with ExitStack() as stack:
        engines, scripts = served(stack, folders, RequestLimits(attempts=12))
        bench = Bench("sglang", engines)
        plain = bench.solve(writer, method="ets")
        for script in scripts:
            script.statuses = faults()
        for share in (None, 1.0):
            for one, other in zip(plain, bench.solve(writer, method="ets", speculate=share), strict=True):
                assert kept(one, MACHINE | COMPUTED | ATTEMPTS) == kept(other, MACHINE | COMPUTED | ATTEMPTS)
        bench.close()
    assert all(wronged.values()) and len(wronged) == 7
