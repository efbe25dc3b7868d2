"""From settled settings to a loop with all its parts, and to what writes its prompts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from search.answers.graders import Grader
from search.config import SearchSettings
from search.decision.stopping import Decided
from search.errors import ConfigError
from search.loop.driver import Driver
from search.loop.limits import Limits
from search.loop.thoughts import ThoughtLimit
from search.prompt.prompts import PromptRenderer
from search.protocols import FeatureProvider, Policy, Scorer, Writer
from search.setup.registry import (
    criticises_itself,
    hopeless_below,
    make_engine,
    make_lookahead,
    make_scorer,
    runs_on_engine,
)
from search.setup.routing import Engines, make_writer
from search.steps import line_end_tokens
from search.types import Reduce, Sampling, VoteRule


@dataclass(frozen=True, slots=True)
class OwnParts:
    """What is there before a model is loaded; a writer or scorer of None is made as the settings say."""

    policy: Policy
    grader: Grader
    features: Sequence[FeatureProvider] = ()
    writer: Writer | None = None
    scorer: Scorer | None = None


class Assembled(NamedTuple):
    """A loop, and what puts questions into its model's words."""

    driver: Driver
    prompts: PromptRenderer


def assemble(settings: SearchSettings, engines: Engines, own: OwnParts) -> Assembled:
    """Load what is not loaded, and put the parts together.

    Args:
        settings: as `search.setup.resolve` settled them.
        engines: those that are loaded already.
        own: parts that are there.

    Raises:
        ConfigError: a checkpoint cannot be used, or a part does not fit another.
    """
    scorer, prm = own.scorer, engines.prm
    if scorer is None and runs_on_engine(settings.prm) and prm is None:
        if own.writer is None and criticises_itself(settings):
            prm = engines.policy or make_engine(settings.engine, settings.policy, settings, settings.max_kv_tokens)
            engines = replace(engines, policy=prm)
        else:
            prm = make_engine(settings.prm_engine, settings.prm, settings, settings.prm_max_kv_tokens)
    writer = own.writer or make_writer(settings, replace(engines, prm=prm))
    if scorer is None and settings.prm != "none":
        scorer = make_scorer(settings, prm, writer.tokenizer, writer)
    features = own.features
    if "embedding" in own.policy.features and all(provider.name != "embedding" for provider in features):
        features = (*features, _hidden_feature(scorer))
    prompts = PromptRenderer(settings, writer.tokenizer)
    # Where ids are no tokens the server alone keeps limits, of a request each.
    counted = getattr(writer.tokenizer, "counts_tokens", True)
    whole = any(not getattr(engine, "continues", True) for engine in writer.engines.values())
    sampling = Sampling(
        settings.temperature,
        settings.top_p,
        settings.max_tokens if whole else settings.max_step_tokens,
        prompts.style.stop,
        settings.min_step_tokens,
        line_end_tokens(settings.max_step_tokens),
        logprobs=bool(getattr(scorer, "needs_logprobs", False)) or settings.min_confidence is not None,
    )
    if settings.lookahead and scorer is not None:
        scorer = make_lookahead(scorer, writer, sampling, settings.lookahead)
    max_tokens = settings.max_tokens if counted else sys.maxsize
    thought, confidence = settings.max_thought_tokens, settings.min_confidence

    def decided() -> Decided:
        rule, reduce = cast(VoteRule, settings.vote), cast(Reduce, settings.reduce)
        return Decided(rule, reduce, own.grader, settings.confidence, by_path=own.policy.pace == "leaf")

    driver = Driver(
        own.policy,
        writer,
        scorer,
        width=settings.width,
        sampling=sampling,
        limits=Limits(max_tokens, settings.max_depth, settings.max_seconds, prompts.style.final, whole),
        seed=settings.seed,
        features=features,
        thoughts=None if thought is None else ThoughtLimit(thought, writer.tokenizer),
        stopping=None if settings.until == "spent" else decided,
        speculate=settings.speculate,
        sparing=settings.begin == "needed",
        hopeless=None if confidence is None else hopeless_below(confidence, settings.prm),
    )
    return Assembled(driver, prompts)


def _hidden_feature(scorer: Scorer | None) -> FeatureProvider:
    """The embedder "prm" on the scorer of a search."""
    from prm import PrmScorer
    from prm.hidden import HiddenFeature

    if not isinstance(scorer, PrmScorer):
        raise ConfigError("embedder prm reads the hidden states of a prm.PrmScorer; another scorer has none")
    return HiddenFeature(scorer)
