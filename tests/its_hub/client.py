"""Runs in its_hub's own environment, which has nothing of this project: its algorithms over an OpenAI endpoint.

    python client.py BASE_URL MODEL PROBLEM

Prints one JSON object: what self-consistency and best-of-n chose, and from what.
"""

import asyncio
import json
import re
import sys

from its_hub import BestOfN, OpenAICompatibleLanguageModel, SelfConsistency
from its_hub.api import AbstractOutcomeRewardModel

BUDGET = 8


def answer(text):
    """What stands in the last box."""
    boxes = re.findall(r"\\boxed\{(.*?)\}", text)
    return boxes[-1] if boxes else "none"


class Arithmetic(AbstractOutcomeRewardModel):
    """The share of a solution's equations that are right."""

    def score(self, messages, **kwargs):
        return [self._share(conversation[-1].content) for conversation in messages]

    async def ascore(self, messages, orchestrator=None, **kwargs):
        return self.score(messages)

    def _share(self, text):
        equations = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", text)
        results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
        right = [results[sign](int(one), int(other)) == int(said) for one, sign, other, said in equations]
        return sum(right) / len(right) if right else 0.0


async def main(url, model, problem):
    lm = OpenAICompatibleLanguageModel(endpoint=url, api_key="none", model_name=model, temperature=1.0)
    async with lm:
        voted = await SelfConsistency(answer).ainfer(lm, problem, budget=BUDGET, return_response_only=False)
        best = await BestOfN(Arithmetic()).ainfer(lm, problem, budget=BUDGET, return_response_only=False)
    chosen = {
        "voted": voted.the_one["content"],
        "votes": [answer(one["content"]) for one in voted.responses],
        "texts": [one["content"] for one in voted.responses],
        "best": best.the_one["content"],
        "candidates": [one["content"] for one in best.responses],
        "scores": list(best.scores),
        "usage": [voted.usage.prompt_tokens, voted.usage.completion_tokens],
    }
    json.dump(chosen, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
