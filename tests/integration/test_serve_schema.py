"""`ets serve` against requests made up from its own OpenAPI document, right and wrong ones."""

from collections import Counter

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.cache import LRUCache
from hypothesis.internal.conjecture import providers
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve_client import ets_serve

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
NUM_CASES = {CHAT: 760, TEXT: 200, "/v1/models/{name}": 50, "/live/searches/{search_id}": 50}
"""Of two thousand: right ones and, for those that have a body, as many wrong ones."""

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


def probe(operation, mode, session, share):
    """Send requests of one kind to one operation, a share of all; how often each status came back."""
    statuses = Counter()

    @settings(
        max_examples=max(5, round(share * NUM_CASES.get(operation.path, 5))),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call(session=session, timeout=120)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    ask()
    return statuses


@pytest.fixture(autouse=True)
def made_of_the_document_alone(monkeypatch):
    """Hypothesis also draws from constants in whatever modules the tests before have loaded."""
    monkeypatch.setattr(providers, "_get_local_constants", providers.Constants)
    monkeypatch.setattr(providers, "CONSTANTS_CACHE", LRUCache(1024))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_requests", [400, pytest.param(2000, marks=pytest.mark.nightly)])
def test_many_requests_meet_no_fault_and_only_what_the_document_says(num_requests):
    share = num_requests / 2000
    tiny = ("--width", 1, "--max-width", 2, "--max-tokens", 4, "--max-request-tokens", 4, "--max-depth", 2)
    answered, refused = {}, {}
    with ets_serve("--method", "beam", *tiny) as server, requests.Session() as session:
        document = session.get(f"{server.url}/openapi.json", timeout=60).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=server.url)
        for found in schema.get_all_operations():
            operation = found.ok()
            answered[operation.path] = probe(operation, GenerationMode.POSITIVE, session, share)
            if operation.body:  # wrong ones can be made of nothing else
                refused[operation.path] = probe(operation, GenerationMode.NEGATIVE, session, share)
        assert server.process.poll() is None and server.said == []
    assert sum(statuses.total() for statuses in (*answered.values(), *refused.values())) >= num_requests
    for path, least in ((CHAT, 1.0), (TEXT, 0.2)):
        right, wrong = answered[path], refused[path]
        num_refused = wrong[400] + wrong[422]  # for what they hold, not for the model alone that they name
        assert right[200] >= 160 * share * least and num_refused >= 400 * share * least, (path, right, wrong)
        assert right.keys() <= {200, 422} and wrong.keys() <= {400, 404, 422}, (path, right, wrong)
