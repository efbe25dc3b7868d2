"""The plan of a reproduction, without running or reaching anything: runs, requests, tokens, GPU memory, servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.config import EvalSettings
from search.setup.resolve import settle
from search.studies.recipe import Model, Recipe
from search.studies.recipe_runs import Planned
from search.support.tables import Table

GIB = 1 << 30


def plan_dict(recipe: Recipe, planned: Sequence[Planned]) -> dict[str, Any]:
    """As `--dry-run --json` prints it; bounds are of searches that use all their width and depth."""
    runs: list[dict[str, Any]] = [
        {
            "run": run.name,
            "problems": run.settings.limit,
            "policy_requests_at_most": _requests(run.settings),
            "score_requests_at_most": _scores(run.settings),
            "policy_tokens_at_most": (run.settings.limit or 0) * _width(run.settings) * run.settings.max_tokens,
            "settings": run.settings.model_dump(mode="json", exclude_unset=True),
        }
        for run in planned
    ]
    widest = max((_width(run.settings) for run in planned), default=1)
    return {
        "title": recipe.title,
        "notes": list(recipe.notes),
        "runs": runs,
        "policy_requests_at_most": sum(run["policy_requests_at_most"] for run in runs),
        "score_requests_at_most": sum(run["score_requests_at_most"] for run in runs),
        "models": [_memory(model, planned, widest) for model in recipe.models],
        "servers": [model.launch for model in recipe.models if model.launch],
    }


def plan_text(plan: dict[str, Any]) -> str:
    """The plan as Markdown."""
    runs = _table(
        "runs",
        "Runs",
        plan["runs"],
        {
            "run": "run",
            "problems": "problems",
            "policy requests, at most": "policy_requests_at_most",
            "score requests, at most": "score_requests_at_most",
            "policy tokens, at most": "policy_tokens_at_most",
        },
        f"In all at most {plan['policy_requests_at_most']:,} requests to the policy and "
        f"{plan['score_requests_at_most']:,} scores; a request writes all children of one node.",
    )
    models = _table(
        "models",
        "Models and GPU memory",
        plan["models"],
        {
            "role": "role",
            "model": "model",
            "weights, GiB": "weights_gib",
            "KV per 1,000 tokens, GiB": "kv_gib_per_1000_tokens",
            "KV of one problem, GiB, at most": "kv_gib_one_problem",
            "GPUs": "gpus",
            "GiB a GPU, at least": "gib_per_gpu",
        },
        "KV of one problem: all trajectories of the widest run at full length, nothing shared or pruned. GiB a "
        "GPU: weights and that, spread over the GPUs; activations and the server's own share come on top.",
    )
    servers = ["### Servers", "", *(f"    {line}" for line in plan["servers"])] if plan["servers"] else []
    parts = [f"## {plan['title']}", " ".join(plan["notes"]), runs.markdown(), models.markdown(), "\n".join(servers)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _width(settings: EvalSettings) -> int:
    """The width that the method really has."""
    return settle(settings).settings.width


def _requests(settings: EvalSettings) -> int:
    """One for the prompt, then one for each open leaf of each further level; twice that for a draft and a target."""
    models = 2 if settings.writer == "arbitrage" and settings.router not in ("never", "always") else 1
    return (settings.limit or 0) * (1 + (settings.max_depth - 1) * _width(settings)) * models


def _scores(settings: EvalSettings) -> int:
    scored = settle(settings).settings.prm != "none"
    judged = settings.writer == "arbitrage" and settings.router.partition(":")[0] not in ("never", "always", "random")
    return (settings.limit or 0) * settings.max_depth * _width(settings) if scored or judged else 0


def _memory(model: Model, planned: Sequence[Planned], widest: int) -> dict[str, Any]:
    longest = max((run.settings.max_tokens for run in planned), default=0)
    weights = model.parameters_billion * 1e9 * model.bytes_per_parameter / GIB
    one_problem = model.kv_bytes_per_token * widest * longest / GIB
    return {
        "role": model.role,
        "model": model.model,
        "weights_gib": weights,
        "kv_gib_per_1000_tokens": 1000 * model.kv_bytes_per_token / GIB,
        "kv_gib_one_problem": one_problem,
        "gpus": model.gpus,
        "gib_per_gpu": (weights + one_problem) / model.gpus,
        "launch": model.launch,
    }


def _table(name: str, title: str, rows: Sequence[dict[str, Any]], columns: dict[str, str], note: str) -> Table:
    """Rows of the plan under headings, each with the key of its column."""
    cells = tuple(tuple(_shown(row[key]) for key in columns.values()) for row in rows)
    return Table(name, title, tuple(columns), cells, (note,))


def _shown(value: str | float | None) -> str | None:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
