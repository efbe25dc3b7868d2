"""Figures of a mini model: pass rates of a policy, step AUC of a PRM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from search.mini.checker import Verdict, answer_of, check_steps, split_steps
from search.mini.corpus import Document, checked_document
from search.mini.model import MiniModel
from search.mini.problems import MiniProblem, format_prompt
from search.mini.sample import sample, step_rewards
from search.mini.tokenizer import decode, encode
from search.support import statistics

CURVE_SEED = 7


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sampled solution.

    Attributes:
        ids: its tokens, without the prompt.
        text: the same as text.
        answer: the stated answer, or None.
        correct: whether that is the problem's.
    """

    ids: tuple[int, ...]
    text: str
    answer: str | None
    correct: bool

    def verdict(self, story: MiniProblem) -> Verdict:
        """The checker's verdict on every step."""
        return check_steps(story, split_steps(self.text))


def attempts(
    model: MiniModel,
    stories: Sequence[MiniProblem],
    seed: int,
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
) -> list[list[Attempt]]:
    """Sample solutions to problems; for each problem its attempts."""
    prompts = [encode(format_prompt(item.text)) for item in stories]
    written = sample(model, prompts, seed, num_samples=num_samples, temperature=temperature)
    return [[_attempt(item, ids) for ids in solutions] for item, solutions in zip(stories, written, strict=True)]


def _attempt(story: MiniProblem, ids: list[int]) -> Attempt:
    text = decode(ids)
    answer = answer_of(text)
    return Attempt(tuple(ids), text, answer, answer == story.answer)


def policy_figures(model: MiniModel, asked: Sequence[MiniProblem]) -> dict[str, float]:
    """pass@1 at temperature 1, greedy accuracy, and the share of all slips and of stray errors among steps."""
    drawn = attempts(model, asked, CURVE_SEED)
    greedy = attempts(model, asked, CURVE_SEED, temperature=0.0)
    faults: Counter[str] = Counter()
    num_steps = 0
    for item, (only,) in zip(asked, drawn, strict=True):
        for step in only.verdict(item).steps:
            num_steps += 1
            faults[step.fault.value if step.fault else "none"] += 1
    strays = sum(faults[kind] for kind in ("noise", "arithmetic", "copy", "order", "answer", "format"))
    return {
        "pass1": sum(tries[0].correct for tries in drawn) / len(asked),
        "greedy": sum(tries[0].correct for tries in greedy) / len(asked),
        "wrong_steps": 1 - faults["none"] / max(1, num_steps),
        "stray_steps": strays / max(1, num_steps),
    }


def prm_figures(model: MiniModel, labelled: Sequence[Document]) -> dict[str, float]:
    """AUC of step correctness up to the first error, and mean reward of right and of wrong steps."""
    scores, labels = up_to_first_error(step_rewards(model, labelled), [d.labels for d in labelled])
    right = [score for score, label in zip(scores, labels, strict=True) if label]
    wrong = [score for score, label in zip(scores, labels, strict=True) if not label]
    return {
        "auc": auc(scores, labels),
        "reward_right": sum(right) / max(1, len(right)),
        "reward_wrong": sum(wrong) / max(1, len(wrong)),
    }


def labelled_documents(stories: Sequence[MiniProblem], tries: Sequence[Sequence[Attempt]]) -> list[Document]:
    """Sampled solutions with the checker's labels; those whose steps and tokens do not match are left out."""
    documents = [
        checked_document(item, attempt.ids, attempt.text)
        for item, attempted in zip(stories, tries, strict=True)
        for attempt in attempted
    ]
    return [document for document in documents if document is not None]


def up_to_first_error(
    rewards: Sequence[Sequence[float]], labels: Sequence[Sequence[bool]]
) -> tuple[list[float], list[bool]]:
    """Flatten rewards and labels, each solution cut after its first wrong step."""
    flat_rewards: list[float] = []
    flat_labels: list[bool] = []
    for scores, truths in zip(rewards, labels, strict=True):
        for score, truth in zip(scores, truths, strict=True):
            flat_rewards.append(score)
            flat_labels.append(truth)
            if not truth:
                break
    return flat_rewards, flat_labels


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve, ties counted half; 0.5 where one class is missing."""
    area = statistics.auc(scores, labels)
    return 0.5 if area is None else area
