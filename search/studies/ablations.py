"""The router ablations of Arbitrage (arXiv 2512.05033): routers trained under other options, on the same steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import EvalSettings
from search.results.record import read_json
from search.setup.resolve import settle
from search.studies import published
from search.studies.document import NOT_RUN
from search.studies.recipe import Ablation, ArbitrageRecipe, Steps
from search.studies.recipe_runs import Say
from search.support.files import write_atomic
from search.support.tables import Cell, Table

if TYPE_CHECKING:
    from arbitrage.walks import Walk

Figures = Mapping[str, Mapping[str, Any]]
"""What `arbitrage.evaluation.figures` says, by the name of the published row."""


def measure(recipe: ArbitrageRecipe, limit: int, runs: Path, say: Say) -> dict[str, dict[str, Any]]:
    """Train the recipe's routers and measure each on held-out steps; steps, routers and figures are kept on disk.

    Args:
        recipe: names the routers.
        limit: problems of the held-out steps; 0 measures nothing.
        runs: folder of the recipe's runs.
        say: told of progress.

    Raises:
        ConfigError, SearchError: as `search.learning.router.collect_walks` and `train_router`.
    """
    if not limit or not recipe.ablations:
        return {}
    from arbitrage.evaluation import figures
    from arbitrage.training import texts_of
    from search.learning.router import load_router

    data = recipe.evaluation({}, limit).data
    held_out = _walks(recipe, Steps(data=data, skip=recipe.ablation_skip, limit=limit), runs / f"held-out-{limit}")
    num_pairs = sum(len(walk.pairs) for walk in held_out)
    say(f"ablations: {num_pairs} held-out pairs of steps")
    found = {}
    for name, wanted in recipe.ablations.items():
        model = wanted if isinstance(wanted, str) else _trained(recipe, wanted, runs, say)
        file = runs / f"held-out-{limit}" / f"figures-{name.replace(' ', '-')}.json"
        if not file.is_file() or read_json(file).get("model") != model:
            parts = load_router(model, tree_model=_pair(recipe).target)
            room = int(parts.network.config.max_position_embeddings)
            estimates = parts.model.estimates(texts_of(held_out, parts.reader, room), num_pairs)
            measured = {"model": model, **figures(held_out, estimates, parts.config.margin)}
            write_atomic(file, json.dumps(measured, indent=1) + "\n")
        found[name] = read_json(file)
    return found


def _pair(recipe: ArbitrageRecipe) -> EvalSettings:
    """The recipe's settings with its draft, its target, and the reward model that goes with them."""
    return settle(recipe.evaluation({"writer": "arbitrage", "router": "never"}, 1)).settings


def _walks(recipe: ArbitrageRecipe, steps: Steps, folder: Path) -> list[Walk]:
    """Walks of the recipe's pair; those that are there are read back."""
    from search.learning.collection import Collection, collect_walks

    settings = _pair(recipe)
    wanted = Collection(
        data=steps.data,
        limit=steps.limit,
        skip=steps.skip,
        draft=settings.draft,
        target=settings.target,
        prm=settings.prm,
        engines=(settings.draft_engine, settings.engine, settings.prm_engine),
        temperature=steps.temperature,
        seed=settings.seed,
    )
    return collect_walks(wanted, folder)


def _trained(recipe: ArbitrageRecipe, wanted: Ablation, runs: Path, say: Say) -> str:
    """The folder of a router trained as `wanted` says; one that is there is taken as it is."""
    from arbitrage.reading import CONFIG_FILE
    from arbitrage.training import TrainPoint
    from search.learning.router import new_router, save_router, train_router

    plan = recipe.ablation_training
    assert plan is not None, "the recipe's schema asks for it"
    training = replace(plan.training(), classes=wanted.classes, balance=wanted.balance)
    text = json.dumps([asdict(training), wanted.annotate, plan.model_dump()], sort_keys=True)
    name = f"router-{wanted.classes}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    folder = runs / name
    if not (folder / CONFIG_FILE).is_file():
        train, dev = (_walks(recipe, steps, runs / f"{role}-{steps.limit}") for role, steps in plan.data.items())
        settings = _pair(recipe)
        parts = new_router(
            settings.prm,
            {
                **{role: getattr(settings, role) for role in ("draft", "target", "prm")},
                **{"classes": wanted.classes, "annotate": wanted.annotate, "margin": training.margin},
                **plan.tags,
            },
            device=settings.device,
            tree_model=settings.target,
        )

        def report(point: TrainPoint) -> None:
            if point.dev_auc is not None:
                say(f"{name}: step {point.step}/{point.num_steps}, dev AUC {point.dev_auc:.4f}")

        _, record = train_router(parts, train, dev, training, report)
        save_router(parts, folder, record, bfloat16=training.dtype == "bfloat16")
    return str(folder)


def table(measured: Figures) -> Table:
    """Ours beside the published rows."""
    rows: list[tuple[Cell, ...]] = []
    for name, theirs in published.ABLATIONS.items():
        ours = measured.get(name)
        cells: list[Cell] = [NOT_RUN] * 4
        if ours is not None:
            percents = [
                ours[key] if ours[key] is None else round(100 * ours[key], 2) for key in ("accuracy_0", "accuracy_1")
            ]
            cells = [ours["spearman"], *percents, ours["auc_advantage"]]
        rows.append(
            (name, cells[0], theirs.spearman, cells[1], theirs.accuracy_0, cells[2], theirs.accuracy_1, cells[3])
        )
    columns = (
        "router", "Spearman, ours", "published", "right in class 0, %, ours", "published",
        "right in class 1, %, ours", "published", "AUC for the label, ours",
    )  # fmt: skip
    notes = (
        "Class 1: the target's step is scored better by more than the margin of the router's label. All rows of ours "
        "were trained on the same steps, and differ by the option alone. Rows that were not run have no option here.",
    )
    return Table("ablations", "Router ablations", columns, tuple(rows), notes)
