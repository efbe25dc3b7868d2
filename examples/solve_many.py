"""Solve test problems of the mini family side by side, and say what each search cost.

Usage: python examples/solve_many.py [NUM_PROBLEMS]
"""

from __future__ import annotations

import sys

from search import Failure, Problem, Search
from search.mini.problems import problems


def main(count: int) -> None:
    asked = [Problem(one.id, one.text, one.answer) for one in problems("test", count)]
    with Search(policy="mini:target", prm="mini:prm", method="rebase", width=8) as search:
        for result in search.solve_many(asked, concurrency=4):
            if isinstance(result, Failure):
                print(f"{result.problem.id}: {result.error}")
                continue
            verdict = "right" if result.correct else f"wrong, {result.problem.answer} is right"
            kept = result.stats.kv_tokens_mean
            print(f"{result.problem.id}: {result.answer} ({verdict}), {kept:.0f} KV tokens kept on average")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
