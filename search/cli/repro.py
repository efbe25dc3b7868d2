"""`ets repro ets` and `ets repro arbitrage`: the papers' tables from one recipe, beside the published figures."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.kinds import COUNT, FILE
from search.cli.main import say
from search.cli.show import GOES_ON, print_json
from search.config import flag
from search.errors import ConfigError
from search.support.plots import check_plots

if TYPE_CHECKING:
    from search.studies.recipe import ArbitrageRecipe, EtsRecipe


@click.command()
@click.argument("paper", type=click.Choice(["ets", "arbitrage"]))
@click.option("--recipe", default="mini", metavar="NAME", help="a shipped recipe, or a .yaml file")
@click.option("--quick", is_flag=True, help="the recipe's first look: fewer problems, widths and thresholds")
@click.option("--dry-run", is_flag=True, help="print the plan, GPU memory and number of requests; reach nothing")
@click.option(
    "--runs", type=FILE, metavar="DIR", help="keep the records here, and go on with them; default: runs/PAPER-RECIPE"
)
@click.option("--out", type=FILE, metavar="DIR", help="write the page, tables and figures")
@click.option("--policy", metavar="NAME", help="in place of the recipe's policy: a path or a hub id")
@click.option("--data", metavar="NAME", help="in place of the recipe's data, as for ets eval")
@click.option("--draft", metavar="NAME", help="arbitrage: in place of the recipe's draft")
@click.option("--target", metavar="NAME", help="arbitrage: in place of its target")
@click.option("--prm", metavar="NAME", help="arbitrage: in place of what rsd and the oracle read")
@click.option("--router-model", metavar="NAME", help="arbitrage: in place of the learned routers, or the probe")
@click.option("--limit", type=COUNT, metavar="N", help="arbitrage: in place of its number of problems")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def repro(
    paper: str,
    recipe: str,
    quick: bool,
    dry_run: bool,
    runs: Path | None,
    out: Path | None,
    as_json: bool,
    **others: Any,
) -> None:
    """Reproduce the tables of PAPER by a recipe; every number comes from a record on disk."""
    from search.studies.recipe import SCHEMAS, load_recipe
    from search.studies.recipe_plan import plan_dict, plan_text

    study = importlib.import_module(f"search.studies.reproduce_{paper}")
    given = {name: value for name, value in others.items() if value is not None}
    wanted = _changed(load_recipe(SCHEMAS[paper], recipe), given)
    if dry_run:
        plan = plan_dict(wanted, list(study.plan(wanted, quick=quick).values()))
        print_json(plan) if as_json else sys.stdout.write(plan_text(plan))
        return
    folder = runs or Path("runs") / f"{paper}-{Path(recipe).stem if recipe.endswith('.yaml') else recipe}"
    started = time.monotonic()

    def tell_time(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
        sys.stderr.flush()

    images = out
    try:
        check_plots()
    except ConfigError as error:
        if out is not None:
            say(f"the tables are written without figures: {error}")
        images = None
    try:
        document = study.reproduce(wanted, folder, quick=quick, images=images, say=tell_time)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what is done is kept in {folder}: {GOES_ON}") from None
    if out is not None:
        for file in document.write(out):
            sys.stderr.write(f"wrote {file}\n")
    print_json(document.to_dict()) if as_json else sys.stdout.write(document.markdown())


def _changed(recipe: EtsRecipe | ArbitrageRecipe, given: dict[str, Any]) -> EtsRecipe | ArbitrageRecipe:
    """A recipe with other models, data or number of problems in place of its own."""
    theirs = {"policy", "data"} if recipe.kind == "ets" else given.keys() - {"policy"}
    if wrong := sorted(given.keys() - theirs):
        raise ConfigError(f"{', '.join(map(flag, wrong))}: a recipe of {recipe.kind} has none")
    settings = {name: given[name] for name in ("policy", "data", "draft", "target") if name in given}
    changed: dict[str, Any] = {"settings": {**recipe.settings, **settings}}
    if recipe.kind == "arbitrage":
        judges = {kind: given["prm"] for kind in ("rsd", "oracle") if "prm" in given}
        learned = {kind: given["router_model"] for kind in ("arbitrage", "probe") if "router_model" in given}
        known = {kind: model for kind, model in learned.items() if kind in recipe.routers.thresholds}
        changed["router_models"] = {**recipe.router_models, **judges, **known}
        for name in ("routers", "quick") if "limit" in given else ():
            if (part := getattr(recipe, name)) is not None:
                changed[name] = part.model_copy(update={"limit": given["limit"]})
    return recipe.model_copy(update=changed)
