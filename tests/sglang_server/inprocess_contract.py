"""The engines' contract over `sglang.Engine` in this process; `test_inprocess.py` runs it where SGLang is."""

from contextlib import asynccontextmanager

import pytest
import test_engine_contract as contract
from contract_model import SGLANG_POSITIONS, build
from launch import ARGUMENTS
from test_engine_contract import *  # noqa: F403  (its tests run here with the case below)

from search.engines.remote import SglangEngine
from search.engines.remote.model import read_model

OPTIONS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_overlap_schedule": True,
    "max_total_tokens": 65536,
    "mem_fraction_static": 0.5,
    "sleep_on_idle": True,
    "dtype": "float32",
    "enable_return_hidden_states": True,
}
"""As `launch.ARGUMENTS`, by their names in Python."""


class Kept:
    """A server that is not stopped with the engine over it, as it takes a minute to start."""

    def __init__(self, server):
        self._server = server

    def __getattr__(self, name):
        return getattr(self._server, name)

    def __str__(self):
        return str(self._server)

    async def aclose(self):
        pass


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    assert len(OPTIONS) >= sum(one.startswith("--") for one in ARGUMENTS) - 2
    folder = tmp_path_factory.mktemp("contract")
    build(folder, SGLANG_POSITIONS)
    engine = SglangEngine.load(str(folder), **OPTIONS)
    (worker,) = engine._workers.all
    yield folder, worker.transport, engine
    worker.transport.stop()


@pytest.fixture
def case(started):
    folder, server, first = started

    @asynccontextmanager
    async def opened(_):
        model = read_model(str(folder), "sglang")
        model.info = first.info
        engine = SglangEngine(model, [Kept(server)], first.facts)
        yield engine
        await engine.aclose()

    return contract.Case(opened, folder=folder, recomputed_tokens=1, tempered_logprobs=True)
