"""The engines' contract, the same code as for all others, against a real SGLang server."""

from contextlib import asynccontextmanager

import pytest
import test_engine_contract as contract
from test_engine_contract import *  # noqa: F403  (its tests run here with the case below)

from search.engines.remote import OpenAIEngine, SglangEngine

KINDS = {"sglang": SglangEngine, "openai": OpenAIEngine}


@pytest.fixture(params=KINDS)
def case(request, servers):
    kind, native = KINDS[request.param], request.param == "sglang"

    @asynccontextmanager
    async def opened(folder):
        engine = kind.connect(str(folder), servers.url("contract"))
        yield engine
        await engine.aclose()

    return contract.Case(
        opened,
        folder=servers.model("contract"),
        recomputed_tokens=1,
        counts=native,
        reads_hidden=native,
        tempered_logprobs=True,
    )
