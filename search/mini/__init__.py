"""The mini family: small trained models, the problems they solve, and an exact checker of every step.

Nothing here imports torch; the models' files are in ``assets``, their training in ``train``.
"""

from search.mini.assets import checkpoint_path
from search.mini.checker import answer_of, check_steps
from search.mini.problems import SPLITS, MiniProblem, format_prompt, problem

__all__ = [
    "SPLITS",
    "MiniProblem",
    "answer_of",
    "check_steps",
    "checkpoint_path",
    "format_prompt",
    "problem",
]
