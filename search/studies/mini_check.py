"""`ets mini check`: the figures of the mini family's gate, searched on problems never trained or tuned on."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from search.answers.graders import PlainGrader
from search.decision.vote import candidates, vote
from search.engines.local import LocalEngine
from search.errors import ConfigError
from search.learning.collection import step_checker
from search.mini.assets import weights_folder
from search.mini.checker import check_steps
from search.mini.evaluate import auc, up_to_first_error
from search.mini.gate import GateResult, judge
from search.mini.problems import MiniProblem, problems
from search.problems.data import load_problems
from search.protocols import Engine
from search.results.result import Result
from search.studies.checker_router import CheckerRouter, routed_chain
from search.studies.measured import Measured, Models, measure
from search.support.statistics import mean_estimate, paired_estimate
from search.types import NodeStatus, Problem

WIDTH = 16
"""Independent samples of a problem."""

SEARCH_WIDTHS = (4, WIDTH)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check measured.

    Attributes:
        figures: means over the evaluation seeds; intervals are 95%, paired by problem.
        per_seed: the figures of each seed alone, without intervals.
        gate: the gate's lines.
        split: problems measured on.
        num_problems: how many.
        seconds: wall seconds.
    """

    figures: dict[str, float]
    per_seed: dict[int, dict[str, float]]
    gate: tuple[GateResult, ...]
    split: str
    num_problems: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every line that was measured passes."""
        return all(result.passed for result in self.gate)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        lines = [{**line._asdict(), "passed": line.passed} for line in self.gate]
        return {**asdict(self), "gate": {line.pop("figure"): line for line in lines}, "passed": self.passed}


def check(
    *,
    weights: Path | None = None,
    split: str = "test",
    num_problems: int = 300,
    seeds: Sequence[int] = (0, 1),
    say: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Measure the family.

    Figures, all with `_lo` and `_hi`. Of 16 samples a problem: `target_pass1`, `target_pass16`, `target_majority16`,
    `target_weighted16`, the same of the draft but for the last, and `weighted_minus_majority_16`, paired by problem;
    `target_greedy`. For W of 4 and 16: `rebase_W`, `weighted_W` (best-of-n, weighted vote), and
    `rebase_minus_weighted_W`, paired. Without intervals `prm_auc` and `prm_auc_draft`, of the rewards of the target's
    and of the draft's steps up to each solution's first error; `mean_steps` of the target's solutions; and those of
    `side_by_side`.

    Args:
        weights: folder with `target`, `draft` and `prm`; the shipped ones where not given.
        split: problems to measure on.
        num_problems: how many, from the first.
        seeds: of the searches; each measures everything anew on the same problems.
        say: told what is being measured.

    Raises:
        ConfigError: the split is unknown, there is no problem or seed, or a checkpoint cannot be loaded.
    """
    if num_problems < 1 or not seeds:
        raise ConfigError("a check needs at least one problem and one seed")
    started = time.monotonic()
    target = Models.mini(weights)
    draft = Models(LocalEngine.load(str((weights or weights_folder()) / "draft")), target.prm)
    asked, mini_problems = load_problems(f"mini:{split}", num_problems), list(problems(split, num_problems))
    per_seed: dict[int, dict[str, float]] = {}
    per_problem: dict[str, list[Sequence[float]]] = defaultdict(list)
    for seed in seeds:
        say(f"seed {seed}: {WIDTH} samples a problem, by target and draft")
        drawn = {
            name: measure(models, asked, method="best-of-n", width=WIDTH, seed=seed)
            for name, models in (("target", target), ("draft", draft))
        }
        outcomes: dict[str, list[float]] = {}
        for name, measured in drawn.items():
            outcomes |= _samples(name, measured.results)
        outcomes["target_greedy"] = measure(target, asked, method="greedy", seed=seed).right
        outcomes["target_weighted16"] = outcomes["weighted_16"] = drawn["target"].right
        say(f"seed {seed}: searches")
        outcomes["weighted_4"] = measure(target, asked, method="best-of-n", width=4, seed=seed).right
        for width in SEARCH_WIDTHS:
            outcomes[f"rebase_{width}"] = measure(target, asked, method="rebase", width=width, seed=seed).right
        say(f"seed {seed}: steps of target and draft side by side")
        per_seed[seed] = {
            **{name: sum(values) / len(values) for name, values in outcomes.items()},
            "prm_auc": _step_auc(mini_problems, drawn["target"].results),
            "prm_auc_draft": _step_auc(mini_problems, drawn["draft"].results),
            "mean_steps": _mean_steps(drawn["target"].results),
            **side_by_side(draft.policy, target.policy, asked, split, seed),
        }
        for name, values in outcomes.items():
            per_problem[name].append(values)
    names = per_seed[seeds[0]]
    figures = {name: sum(per_seed[seed][name] for seed in seeds) / len(seeds) for name in names}
    means = {name: [sum(row) / len(seeds) for row in zip(*rows, strict=True)] for name, rows in per_problem.items()}
    for name, values in means.items():
        figures |= mean_estimate(values).figures(name)
    gains = {"weighted_minus_majority_16": ("target_weighted16", "target_majority16")}
    gains |= {f"rebase_minus_weighted_{width}": (f"rebase_{width}", f"weighted_{width}") for width in SEARCH_WIDTHS}
    for name, (ours, theirs) in gains.items():
        figures |= paired_estimate(means[ours], means[theirs]).figures(name)
    figures["params_ratio"] = (target.policy.info.num_parameters or 0) / (draft.policy.info.num_parameters or 1)
    figures["greedy_minus_pass1"] = figures["target_greedy"] - figures["target_pass1"]
    gate = tuple(judge(figures))
    return CheckReport(figures, per_seed, gate, split, num_problems, time.monotonic() - started)


def _samples(name: str, results: Sequence[Result]) -> dict[str, list[float]]:
    """Of each problem the share of samples that are right, whether any is, and whether their majority is."""
    grader = PlainGrader()
    shares, majorities = [], []
    for result in results:
        voters, reference = candidates(result.tree, "last", grader), result.problem.answer or ""
        shares.append(sum(grader.correct(voter.answer, reference) for voter in voters) / WIDTH)
        majorities.append(float(grader.correct(vote(voters, "majority").answer, reference)))
    passed = [float(share > 0) for share in shares]
    return {f"{name}_pass1": shares, f"{name}_pass16": passed, f"{name}_majority16": majorities}


def _step_auc(problems: Sequence[MiniProblem], results: Sequence[Result]) -> float:
    """AUC of the rewards for the checker's verdicts up to the first error, over four samples a problem."""
    rewards, labels = [], []
    for problem, result in zip(problems, results, strict=True):
        for end in result.tree.leaves(NodeStatus.FINISHED)[:4]:
            steps = result.tree.path(end.id)[1:]
            rewards.append([step.reward or 0.0 for step in steps])
            verdict = check_steps(problem, [step.text.strip("\n") for step in steps])
            labels.append([step.right for step in verdict.steps])
    return auc(*up_to_first_error(rewards, labels))


def _mean_steps(results: Sequence[Result]) -> float:
    depths = [end.depth for result in results for end in result.tree.leaves(NodeStatus.FINISHED)]
    return sum(depths) / max(1, len(depths))


def side_by_side(draft: Engine, target: Engine, problems: Sequence[Problem], split: str, seed: int) -> dict[str, float]:
    """Steps of draft and target from the same prefixes, on the chains of the exact oracle: the room that routing has.

    Returns:
        `only_target_right`, which is also the target's share (`oracle_target_share`), `both_wrong`, and their sum
        `wrong_draft_share`: shares of the steps; `oracle_accuracy`: of the chains' answers.
    """
    checker = step_checker(f"mini:{split}")
    assert checker is not None, "the mini family has one"
    router = CheckerRouter(checker, problems)
    measured = Measured()
    asyncio.run(measured.add(routed_chain(draft, target, router, seed=seed), problems))
    only_target = sum(verdicts.target and not verdicts.draft for verdicts in router.verdicts) / len(router.verdicts)
    both_wrong = sum(not verdicts.target and not verdicts.draft for verdicts in router.verdicts) / len(router.verdicts)
    return {
        "only_target_right": only_target,
        "both_wrong": both_wrong,
        "oracle_accuracy": measured.accuracy,
        "oracle_target_share": only_target,
        "wrong_draft_share": only_target + both_wrong,
    }
