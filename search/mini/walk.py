"""Steps of target and draft side by side from the same prefixes: the room that routing has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from search.mini.checker import StepVerdict, answer_of, check_steps
from search.mini.model import MAX_POSITIONS, MiniModel
from search.mini.problems import MiniProblem, format_prompt
from search.mini.sample import sample
from search.mini.tokenizer import EOS_TOKEN, decode, encode, token_id

MAX_WALK_STEPS = 14
MAX_STEP_TOKENS = 48


@dataclass(frozen=True, slots=True)
class StepPair:
    """A draft's and a target's step from one prefix.

    Attributes:
        draft_right: whether the draft's step is right given the stated values before it.
        target_right: whether the target's is.
    """

    draft_right: bool
    target_right: bool


@dataclass(slots=True)
class _Walk:
    found: MiniProblem
    ids: list[int]
    texts: list[str] = field(default_factory=list)
    over: bool = False

    def verdict(self, text: str) -> StepVerdict:
        return check_steps(self.found, [*self.texts, text]).steps[-1]


def walk(
    target: MiniModel, draft: MiniModel, found: Sequence[MiniProblem], seed: int
) -> tuple[list[StepPair], list[str | None]]:
    """Walk each problem as the oracle router does: the target's step where it alone is right, else the draft's.

    Returns:
        The pairs of all steps, and each walk's answer.
    """
    walks = [_Walk(item, encode(format_prompt(item.text))) for item in found]
    pairs: list[StepPair] = []
    for number in range(MAX_WALK_STEPS):
        live = [one for one in walks if not one.over]
        if not live:
            break
        prefixes = [one.ids for one in live]
        written = [
            sample(model, prefixes, 1000 * seed + 2 * number + which, one_step=True, max_tokens=MAX_STEP_TOKENS)
            for which, model in enumerate((draft, target))
        ]
        for one, (draft_ids,), (target_ids,) in zip(live, *written, strict=True):
            pair = StepPair(*(one.verdict(decode(ids)).right for ids in (draft_ids, target_ids)))
            pairs.append(pair)
            taken = target_ids if pair.target_right and not pair.draft_right else draft_ids
            one.ids.extend(taken)
            one.texts.append(decode(taken))
            too_long = len(one.ids) + MAX_STEP_TOKENS > MAX_POSITIONS
            one.over = too_long or taken[-1] == token_id(EOS_TOKEN)
    return pairs, [answer_of("\n\n".join(text.strip("\n") for text in one.texts)) for one in walks]


def walk_figures(target: MiniModel, draft: MiniModel, found: Sequence[MiniProblem], seed: int) -> dict[str, float]:
    """Shares of steps where only the target is right and where both are wrong; the oracle router's accuracy."""
    pairs, answers = walk(target, draft, found, seed)
    only_target = sum(pair.target_right and not pair.draft_right for pair in pairs) / len(pairs)
    both_wrong = sum(not pair.target_right and not pair.draft_right for pair in pairs) / len(pairs)
    correct = sum(answer == item.answer for answer, item in zip(answers, found, strict=True))
    return {
        "only_target_right": only_target,
        "both_wrong": both_wrong,
        "oracle_accuracy": correct / len(found),
        "oracle_target_share": only_target,
        "wrong_draft_share": only_target + both_wrong,
    }
