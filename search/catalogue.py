"""What there is by name: one entry for each method, engine, grader, reward model family and router.

An entry names its class by a "module:attribute" string, so that nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from search.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Method:
    """A search method by name.

    Attributes:
        policy: its class.
        fixed: settings that it stands for; what is given for them is not used.
        embeds: whether it compares steps.
        rolls: whether its frontier may roll.
        unscored: what it does at a width above 1 where no reward model says which leaf is better.
        unsure: what was seen of it where only the policy's confidence says so.
    """

    policy: str
    fixed: Mapping[str, object] = field(default_factory=dict)
    embeds: bool = False
    rolls: bool = False
    unscored: str = ""
    unsure: str = ""


METHODS: Mapping[str, Method] = {
    "chain": Method("search.policies:BestOfN", {"width": 1, "prm": "none", "vote": "majority"}),
    "greedy": Method("search.policies:BestOfN", {"width": 1, "temperature": 0.0}),
    "self-consistency": Method("search.policies:BestOfN", {"prm": "none", "vote": "majority"}),
    "best-of-n": Method("search.policies:BestOfN", unscored="best-of-n votes by majority, as self-consistency does"),
    "beam": Method("search.policies:Beam", unscored="beam ranks by nothing and keeps the leaves that come first"),
    "dvts": Method("search.policies:Dvts", unscored="dvts ranks by nothing; each subtree goes on from its first leaf"),
    "rebase": Method(
        "search.policies:Rebase", rolls=True, unscored="rebase gives every leaf the same share of the width"
    ),
    "particle": Method("search.policies:ParticleFilter", unscored="particle draws every leaf with the same chance"),
    "mcts": Method("search.policies:Mcts", unscored="mcts takes every step for as good as any other"),
    "ets": Method(
        "ets:Ets",
        embeds=True,
        rolls=True,
        unscored="ets takes every leaf for as good as any other and prunes by KV cost and coverage alone",
        unsure="ets lost 17 points (7 to 28) to rebase on Qwen2.5-Coder-1.5B, as it prunes more; try rebase first",
    ),
    "ets-paper": Method(
        "ets:EtsPaper",
        embeds=True,
        unscored="ets-paper takes every leaf for as good as any other and prunes by KV cost and coverage alone",
    ),
    "ets-kv": Method(
        "ets:EtsKv",
        rolls=True,
        unscored="ets-kv takes every leaf for as good as any other and prunes by KV cost alone",
        unsure="ets-kv was 8 points (-2 to 18) below rebase on Qwen2.5-Coder-1.5B, as it prunes more; try rebase first",
    ),
}

ENGINES: Mapping[str, str] = {
    "local": "search.engines.local:LocalEngine",
    "sglang": "search.engines.remote:SglangEngine",
    "openai": "search.engines.remote:OpenAIEngine",
    "chat": "search.engines.remote:ChatEngine",
}
"""Kinds of engines. `load` starts one in this process; `connect` takes the address that follows the kind."""

GRADERS: Mapping[str, str] = {
    "plain": "search.answers.graders:PlainGrader",
    "integer": "search.answers.graders:IntegerGrader",
    "exact": "search.answers.graders:ExactGrader",
    "choice": "search.answers.graders:ChoiceGrader",
    "math": "search.answers.mathematical:MathGrader",
}

PEERS: Mapping[str, str] = {"math-verify": "search.answers.peer:MathVerifyGrader"}
"""Others' graders, to compare with."""

PRM_FAMILIES: Mapping[str, str] = {
    "label-tokens": "prm.label_tokens:LabelTokenCodec",
    "math-shepherd": "prm.math_shepherd:MathShepherdCodec",
    "rlhflow": "prm.rlhflow:RlhflowCodec",
    "versaprm": "prm.versa:VersaCodec",
    "skywork-o1": "prm.skywork:SkyworkCodec",
    "reasonflux": "prm.reasonflux:ReasonFluxCodec",
    "qwen-math-prm": "prm.qwen_math:QwenMathPrmCodec",
    "trl": "prm.trl:TrlCodec",
    "reward-head": "prm.reward_head:RewardHeadCodec",
}
"""Codecs, each a `prm.codec.PrmFamily`. The first that recognises a checkpoint has it."""


@dataclass(frozen=True, slots=True)
class ScorerKind:
    """A kind of reward model that is no checkpoint of a family: what stands before the colon of its name.

    Attributes:
        scorer: its class, a `prm.codec.NamedScorer`.
        written: the names there are, and what they stand for, for a person.
        loads: whether a checkpoint's name follows the colon, which runs on `prm_engine`.
        has_files: whether a path follows the colon, whose files are a part of what ran.
        options: settings that are its own.
    """

    scorer: str
    written: str
    loads: bool = False
    has_files: bool = False
    options: tuple[str, ...] = ()


SCORERS: Mapping[str, ScorerKind] = {
    "probe": ScorerKind(
        "prm.probe_scorer:ProbeScorer",
        "a probe on the policy's own states, as ets probe train makes it: probe:FOLDER",
        has_files=True,
    ),
    "confidence": ScorerKind(
        "prm.confidence:ConfidenceScorer",
        "the policy's own probabilities: confidence:mean-logprob, lowest-group or tail",
    ),
    "critic": ScorerKind(
        "prm.critic:CriticScorer",
        "any instruct model, asked whether a step is right: critic:PATH_OR_HUB_ID",
        loads=True,
        options=("critic_prompt",),
    ),
    "critic-cot": ScorerKind(
        "prm.critic:CriticScorer",
        "the same after a critique of its own: critic-cot:PATH_OR_HUB_ID",
        loads=True,
        options=("critic_prompt", "critic_samples"),
    ),
}


def scorer_kind(prm: str) -> ScorerKind | None:
    """The kind that a reward model's name begins with; None for a checkpoint of a family."""
    kind, colon, _ = prm.partition(":")
    return SCORERS.get(kind) if colon else None


@dataclass(frozen=True, slots=True)
class RouterKind:
    """A router by name.

    Attributes:
        router: its class, an `arbitrage.routers.RouterClass`.
        threshold: the letter that its threshold is written by; empty for a router without one.
        meaning: of the threshold.
        default: threshold where none is given: that of the paper.
        highest: that a threshold may be; the lowest is 0.
        judge: who judges: nobody, the target, a reward model, a checkpoint trained as a router, a probe of the draft.
        model: what judges the mini family where nothing is named.
    """

    router: str
    threshold: str = ""
    meaning: str = ""
    default: float = 0.0
    highest: float = 1.0
    judge: Literal["", "target", "prm", "router", "probe"] = ""
    model: str = ""

    @property
    def has_model(self) -> bool:
        """Whether a model of its own stands behind it, which `router_model` names."""
        return self.judge in ("prm", "router", "probe")

    @property
    def scores(self) -> bool:
        """Whether that model scores steps, on an engine of its own as a rule."""
        return self.has_model and self.judge != "probe"


ROUTERS: Mapping[str, RouterKind] = {
    "never": RouterKind("arbitrage.routers:Never"),
    "always": RouterKind("arbitrage.routers:Always"),
    "random": RouterKind("arbitrage.routers:RandomRouter", "P", "share escalated", 0.5),
    "rsd": RouterKind(
        "arbitrage.routers:RsdRouter", "DELTA", "least reward of a draft that stays", 0.7, judge="prm", model="mini:prm"
    ),
    "judge": RouterKind(
        "arbitrage.routers:Judge", "K", "least rating by the target of a draft that stays", 7.0, 9.0, judge="target"
    ),
    "arbitrage": RouterKind(
        "arbitrage.routers:LearnedRouter",
        "TAU",
        "highest estimate of a draft that stays",
        0.5,
        judge="router",
        model="mini:router",
    ),
    "probe": RouterKind(
        "arbitrage.routers:ProbeRouter",
        "TAU",
        "highest estimate of a draft that stays; probe:PATH and probe:PATH:TAU name its folder",
        0.15,
        judge="probe",
        model="mini:probe",
    ),
    "oracle": RouterKind(
        "arbitrage.routers:Oracle",
        "TAU",
        "advantage above which the target's step is taken",
        judge="prm",
        model="mini:prm",
    ),
}


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: "a, b, or c"."""
    *others, last = names
    return ", ".join([*others, f"or {last}"]) if others else last


def router_names() -> list[str]:
    """Routers as they are written: "rsd:DELTA"."""
    return [f"{name}:{kind.threshold}" if kind.threshold else name for name, kind in ROUTERS.items()]


def load(target: str) -> Any:
    """The object that a "module:attribute" string names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """Look a name up.

    Raises:
        ConfigError: unknown; lists what is known and the nearest.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"unknown {kind} {name!r}{guess}; known: {', '.join(known)}")
