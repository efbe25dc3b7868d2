"""ETS (arXiv 2502.13575): pruning a search tree by reward, KV-cache cost and semantic coverage."""

from ets.policy import Ets, EtsKv, EtsPaper
from ets.problem import PruneProblem, PruneSolution, build_problem

__all__ = ["Ets", "EtsKv", "EtsPaper", "PruneProblem", "PruneSolution", "build_problem"]
