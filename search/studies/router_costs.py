"""What a chain under a router costs: FLOPs by the cost model of RSD, and seconds on hardware that is only assumed.

A chain is read back from its trace: which model wrote what, in which order. Each model keeps its cache, so it computes
every token of the path once, and its own dropped ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arbitrage.walks import TARGET
from search.results.record import NodeRecord
from search.tree import Node

JUDGE_OF: Mapping[str, str] = {"rsd": "prm", "arbitrage": "router", "judge": "judge"}
"""Who decides for a kind of router; for the others nobody who computes."""


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One step of a chain.

    Attributes:
        escalated: whether the target's step was taken.
        draft_tokens: of the draft's step; 0 where it was not asked.
        target_tokens: of the target's; 0 where it was not asked.
    """

    escalated: bool
    draft_tokens: int
    target_tokens: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One problem under one router.

    Attributes:
        prompt_tokens: of the prompt.
        steps: from the first to the last.
        correct: whether its answer is right.
    """

    prompt_tokens: int
    steps: tuple[ChainStep, ...]
    correct: bool

    @classmethod
    def of(cls, nodes: Sequence[Node | NodeRecord], correct: bool | None) -> Chain:
        """From the nodes of a search of width 1, the prompt's first."""
        prompt, *written = nodes
        steps = (
            ChainStep(True, node.dropped_tokens, len(node.ids))
            if node.writer == TARGET
            else ChainStep(False, len(node.ids), 0)
            for node in written
        )
        return cls(len(prompt.ids), tuple(steps), correct is True)


@dataclass(slots=True)
class Work:
    """What one model did for a chain.

    Attributes:
        unread: tokens of the path that it has not read yet.
        decoded_tokens: written one by one.
        prefilled_tokens: read in passes.
        num_passes: such passes.
    """

    unread: int
    decoded_tokens: int = 0
    prefilled_tokens: int = 0
    num_passes: int = 0

    def read(self, more: int = 0) -> None:
        """One pass over what it has not read yet, and `more`."""
        tokens = self.unread + more
        self.unread = 0
        self.prefilled_tokens += tokens
        self.num_passes += tokens > 0


def work_of(chain: Chain, judge: str, *, drafts: bool = True, question_tokens: int = 0) -> dict[str, Work]:
    """What draft, target and router did for a chain.

    Args:
        chain: its trace.
        judge: who decides: "judge" (the target itself), "prm" (the reward model), "router" (a learned one), or "none".
        drafts: whether the draft is asked at all.
        question_tokens: read by a judging target after each step.
    """
    works = {name: Work(chain.prompt_tokens) for name in ("draft", "target", "router")}
    reader = {"judge": "target", "prm": "router", "router": "router"}.get(judge)
    for step in chain.steps:
        if drafts:
            works["draft"].read()
            works["draft"].decoded_tokens += step.draft_tokens
        if reader is not None:
            works[reader].read(step.draft_tokens + (question_tokens if reader == "target" else 0))
        if step.escalated:
            works["target"].read()
            works["target"].decoded_tokens += step.target_tokens
        taken = step.target_tokens if step.escalated else step.draft_tokens
        has_read = ("target",) if step.escalated else ("draft", reader)
        for name in works.keys() - has_read:
            works[name].unread += taken
    return works


@dataclass(frozen=True, slots=True)
class Sizes:
    """Models that a trace is projected to: billions of parameters.

    Attributes:
        name: of the pair.
        draft, target, router: billions of parameters; the reward model's are the router's.
        draft_bytes: of a draft's parameter, in memory; the others have `Hardware.bytes_per_parameter`.
    """

    name: str
    draft: float
    target: float
    router: float
    draft_bytes: float = 2.0

    def of(self, role: str) -> float:
        """Parameters of a role."""
        return 1e9 * float(getattr(self, role))


PAIRS = (Sizes("1b_8b", 1.0, 8.0, 1.5), Sizes("8b_70b", 8.0, 70.0, 1.5))
"""The pairs of Arbitrage (arXiv 2512.05033) with its router and reward model."""

OWN_PAIR = "own"
"""The name of the pair that ran."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a projection assumes: batch 1, one device or group a model, weights read once for each pass.

    Attributes:
        bytes_per_parameter: 2 for bf16.
        bytes_per_second: memory bandwidth of one device; a pass, or one decoded token, reads all weights.
        flops_per_second: reached in prefill on one device.
        parameters_per_device: a larger model is spread over so many more devices, which adds their speeds up.
    """

    bytes_per_parameter: float = 2.0
    bytes_per_second: float = 768e9
    flops_per_second: float = 60e12
    parameters_per_device: float = 20e9

    def seconds(self, parameters: float, work: Work, bytes_per_parameter: float | None = None) -> float:
        """Of one model's work; a model of fewer bits reads fewer bytes, and computes as any other."""
        devices = max(1.0, parameters / self.parameters_per_device)
        read = self.bytes_per_parameter if bytes_per_parameter is None else bytes_per_parameter
        one_pass = read * parameters / (self.bytes_per_second * devices)
        prefill = 2 * parameters / (self.flops_per_second * devices)
        return one_pass * (work.decoded_tokens + work.num_passes) + prefill * work.prefilled_tokens


def flops(work: Mapping[str, Work], parameters: Mapping[str, float]) -> float:
    """2 x parameters x tokens, over all models (RSD, arXiv 2501.19324)."""
    return sum(2 * parameters[role] * (done.decoded_tokens + done.prefilled_tokens) for role, done in work.items())


def cost_names(pairs: Sequence[Sizes] = PAIRS) -> tuple[str, ...]:
    """What is compared at equal accuracy, in the order of `search.studies.router_curves.Outcomes.costs`."""
    projected = (f"projected_{what}_{pair.name}" for pair in pairs for what in ("flops", "seconds"))
    return ("target_calls", "flops", *projected)


def costs_of(
    works: Sequence[Mapping[str, Work]], parameters: Mapping[str, float], pairs: Sequence[Sizes] = PAIRS
) -> list[list[float]]:
    """For each of `cost_names` but the target's calls one value a chain.

    Args:
        works: of each chain.
        parameters: of the models that ran, by role.
        pairs: that are projected to.
    """
    costs = [[flops(work, parameters) for work in works]]
    for pair in pairs:
        sizes = {role: pair.of(role) for role in parameters}
        costs.append([flops(work, sizes) for work in works])
        costs.append([projected_seconds(work, pair) for work in works])
    return costs


def projected_seconds(works: Mapping[str, Work], sizes: Sizes) -> float:
    """Of all models' work for one chain, if they had these sizes."""
    return sum(
        Hardware().seconds(sizes.of(role), work, sizes.draft_bytes if role == "draft" else None)
        for role, work in works.items()
    )
