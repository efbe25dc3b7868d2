"""`ets prm eval`: the rewards that a model gives step-labelled solutions, through the scorer that searches use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prm.labels import LabelledSolution
from search.errors import ContextOverflowError
from search.plain_text import encode_text
from search.protocols import Scorer, Tokenizer
from search.support.streams import side_by_side
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Prompt, Step

STEP_END = "\n\n"


def solution_tree(solution: LabelledSolution, name: str, tokenizer: Tokenizer, prompt: Prompt) -> SearchTree:
    """A solution as a policy with this tokenizer would have written it: one path, its ids and texts.

    Args:
        solution: its steps get a blank line each; the last one of a complete solution the end token in its place.
        name: unique among the trees that are scored at one time.
        tokenizer: makes the ids, which only a codec that shares the policy's ids reads.
        prompt: the question as the policy is asked it.
    """
    tree = SearchTree(name, prompt.ids, prompt.text, solution.question)
    node = ROOT
    for number, step in enumerate(solution.steps, 1):
        last = solution.complete and number == len(solution.steps) and len(tokenizer.eos_ids) == 1
        text = step.strip() + ("" if last else STEP_END)
        ids = encode_text(tokenizer, text, written=True) + (tuple(tokenizer.eos_ids) if last else ())
        node = tree.add_child(node)
        tree.write(Step(node, ids, text, FinishReason.STOP, "data"))
    return tree


async def score_solutions(
    scorer: Scorer,
    tokenizer: Tokenizer,
    solutions: Sequence[LabelledSolution],
    prompt: Callable[[str], Prompt],
    *,
    concurrency: int = 8,
    report: Callable[[int], None] = lambda done: None,
) -> list[tuple[float, ...] | None]:
    """Rewards of every step of every solution, in order; None for a solution longer than the model's context.

    Args:
        scorer: the reward model.
        tokenizer: of the policy whose part the data plays; the reward model's own will do.
        solutions: what to score.
        prompt: a question as that policy is asked it.
        concurrency: solutions in flight.
        report: told how many are done.

    Raises:
        ScoringError, EngineError: the model could not be asked, or gave no reward.
    """

    async def rewarded(numbered: tuple[int, LabelledSolution]) -> tuple[float, ...] | None:
        number, solution = numbered
        tree = solution_tree(solution, f"eval{number}#0", tokenizer, prompt(solution.question))
        try:
            async with scorer.open(tree) as session:
                return await session.score(tree, [node.id for node in tree if node.parent is not None])
        except ContextOverflowError:
            return None

    return await side_by_side(rewarded, list(enumerate(solutions)), concurrency, report)
