"""Critics over fake models, which need no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fake_engine import FakeEngine, Fault
from markov import FakeModel

from prm.critic import CriticCodec, CriticScorer
from prm.critic_prompt import CriticPrompt, parse_prompt

WORDS = {"labels": ["+", "-"], "reply": " ", "max_tokens": 4}
"""Of the fake models, which say one of these whatever stands before."""


def prompt_of(kind: str, **values: object) -> CriticPrompt:
    """A critic's prompt over the fake models' vocabulary."""
    return parse_prompt(json.dumps({**WORDS, **values}), kind)


def critic(model: FakeModel, num_critiques: int = 0, faults: Sequence[Fault] = (), **values: object) -> CriticScorer:
    """A critic over a fake model."""
    engine = FakeEngine(model, faults=faults)
    prompt = prompt_of("critic-cot" if num_critiques else "critic", **values)
    if num_critiques and "verdict" not in values:
        prompt = prompt.model_copy(update={"verdict": "Verdict: "})
    return CriticScorer(engine, CriticCodec(engine.tokenizer, prompt), "fake", num_critiques)
