"""Drivers over the fake engine, as tests of the loop set them up."""

import asyncio

from fake_engine import FakeEngine
from markov import LabelModel, story_model

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import Rebase
from search.types import Problem

PROMPT = "Add 3.\n\n"
PROBLEM = Problem("p1", PROMPT, "4")
LONG = story_model(answer=0.1)
"""Writes solutions of about ten steps."""


def make_scorer(**options):
    engine = FakeEngine(LabelModel(), **options)
    codec = LabelTokenCodec(engine.tokenizer, PrmConfig())
    return PrmScorer(engine, codec)


def make_driver(policy=None, *, engine=None, scorer=None, width=8, **options):
    writer = ModelWriter(engine or FakeEngine())
    return Driver(policy or Rebase(), writer, scorer, width=width, **options)


def run(driver, problem=PROBLEM):
    return asyncio.run(driver.solve(problem, PROMPT))
