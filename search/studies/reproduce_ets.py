"""`ets repro ets`: beam, DVTS, REBASE, ETS-KV and ETS over widths, beside what ETS and REBASE published."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from search.runs.report import Run, is_flat, pass_at_1, plot_runs, revote
from search.studies import published
from search.studies.document import NOT_RUN, UNKNOWN, Claim, Document, above, times
from search.studies.recipe import EtsRecipe, Width
from search.studies.recipe_runs import Planned, Say, collect, compared, execute, provenance, summed
from search.support.tables import Cell, Table, difference, share

Runs = Mapping[tuple[int, str], Run]
"""By width and name in the table."""
Votes = Mapping[tuple[int, str], Mapping[str, Run]]
"""The same, each voted over again by every rule."""

VOTES = ("majority", "best", "weighted")
BASELINE, SAMPLING = "rebase", "sampling"


def plan(recipe: EtsRecipe, *, quick: bool = False) -> dict[tuple[int, str], Planned]:
    """The runs by width and method, in the order of the recipe."""
    widths: Mapping[int, Width] = recipe.quick if quick and recipe.quick else recipe.widths
    planned = {}
    for width, at_width in widths.items():
        for name in at_width.methods or tuple(recipe.methods):
            settings = recipe.evaluation(recipe.method(name, width), at_width.limit)
            planned[width, name] = Planned(f"{name}-{width}", settings, recipe.concurrency)
    return planned


def reproduce(
    recipe: EtsRecipe, runs: Path, *, quick: bool = False, images: Path | None = None, say: Say = lambda _: None
) -> Document:
    """Run what is missing, width by width, and make the tables from the records.

    Args:
        recipe: what to run.
        runs: folder of the runs; they are gone on with.
        quick: the recipe's quick widths.
        images: folder for the figures; None draws none.
        say: told of progress.

    Raises:
        ConfigError, SearchError: as `search.studies.recipe_runs.execute`.
    """
    planned = plan(recipe, quick=quick)
    widths = dict.fromkeys(width for width, _ in planned)
    execute([[one for (at, _), one in planned.items() if at == width] for width in widths], runs, recipe.turn, say)
    done = {key: collect(one, runs) for key, one in planned.items()}
    voted = {key: run for key, run in done.items() if key[0] > 1 and (key[1] == BASELINE or is_flat(run))}
    votes = {key: {rule: revote(run, rule) for rule in VOTES} for key, run in voted.items()}
    names: tuple[str, ...] = ()
    if images is not None:
        names = tuple(file.name for file in plot_runs(list(done.values()), images))
    figures = _figures(done, votes)
    return Document(
        "ets",
        recipe.title,
        _claims(done, votes),
        (_search_table(done), _vote_table(recipe, votes), *_baseline_tables(recipe)),
        figures,
        provenance({run.folder.name: run for run in done.values()}, runs, ("policy", "prm")),
        (*recipe.notes, published.ETS_SOURCE),
        _shown(recipe, done),
        names,
    )


def _suffix(width: int, name: str) -> str:
    return f"{width}_{name.replace('-', '_')}"


def _figures(done: Runs, votes: Votes) -> dict[str, float | int | None]:
    figures: dict[str, float | int | None] = {}
    for (width, name), run in done.items():
        end = _suffix(width, name)
        base = done.get((width, BASELINE))
        figures[f"num_problems_{end}"] = len(run.records)
        figures[f"accuracy_{end}"] = run.summary.accuracy
        if is_flat(run):
            figures |= pass_at_1(run).figures("pass_at_1", f"_{end}")
        figures[f"seconds_a_problem_{end}"] = _seconds(run)
        for key in ("policy_tokens", "unique_tokens"):
            figures[f"{key}_{end}"] = round(summed(run, key))
        if base is None or name == BASELINE:
            continue
        figures |= compared(run, base).figures("accuracy_diff", f"_{end}")
        figures[f"kv_ratio_{end}"] = _kv_ratio(run, base)
        figures[f"speedup_{end}"] = _speedup(run, base, "problems_per_second")
        figures[f"cpu_speedup_{end}"] = _speedup(run, base, "problems_per_cpu_second")
    for (width, name), by_rule in votes.items():
        for rule, run in by_rule.items():
            figures[f"vote_{rule}_{_suffix(width, name)}"] = run.summary.accuracy
    return figures


def _kv_ratio(run: Run, base: Run) -> float | None:
    """REBASE's `kv_tokens`, mean over steps and summed over problems, over this run's; None at width 1 or like it."""
    ours = summed(run, "kv_tokens_mean")
    return summed(base, "kv_tokens_mean") / ours if ours else None


def _speedup(run: Run, base: Run, rate: str) -> float | None:
    ours, theirs = getattr(run, rate), getattr(base, rate)
    return ours / theirs if ours and theirs else None


def _seconds(run: Run) -> float | None:
    """Wall seconds a problem, with as many side by side as the run had."""
    rate = run.problems_per_second
    return 1 / rate if rate else None


def _search_table(done: Runs) -> Table:
    notes = (
        "KV tokens: unique tokens of the trajectories kept after a selection, the prompt's included, mean over the "
        "steps of a problem. pass@1: the share of single samples that are right, over all samples of all problems, "
        "where nothing is compared on the way; its interval is a bootstrap over problems. Throughput: problems a "
        "second of wall time, and of CPU time, over the sessions that ended. "
        "The published ETS figures are for the paper's models at large, not for one width.",
    )
    bases = {width: run for (width, name), run in done.items() if name == BASELINE}
    rows = [_search_row(width, name, run, bases.get(width)) for (width, name), run in done.items()]
    return Table.of("searches", "Searches over widths", rows, notes)


def _search_row(width: int, name: str, run: Run, base: Run | None) -> list[tuple[str, Cell]]:
    summary = run.summary
    assert summary.accuracy is not None
    base = None if name == BASELINE else base
    kv, speed = (published.ETS_KV_REDUCTION, published.ETS_SPEEDUP) if name == "ets" else (None, None)
    return [
        ("width", width),
        ("search", name),
        ("problems", len(run.records)),
        ("accuracy, 95% interval", share(summary.accuracy, summary.accuracy_ci95)),
        ("pass@1, 95% interval", _one_sample(run)),
        ("accuracy, published", UNKNOWN),
        ("less REBASE's, paired 95%", None if base is None else difference(*compared(run, base))),
        ("KV tokens, mean", round(float(summary.stats["kv_tokens_mean"] or 0))),
        ("KV less than REBASE", None if base is None else times(_kv_ratio(run, base))),
        ("published", None if base is None else times(kv) or UNKNOWN),
        ("throughput over REBASE", None if base is None else times(_speedup(run, base, "problems_per_second"))),
        ("published", None if base is None else times(speed) or UNKNOWN),
        ("by CPU seconds", None if base is None else times(_speedup(run, base, "problems_per_cpu_second"))),
        ("policy tokens a problem", round(summed(run, "policy_tokens") / len(run.records))),
        ("wall seconds a problem", None if (seconds := _seconds(run)) is None else f"{seconds:.3g}"),
    ]


def _one_sample(run: Run) -> Cell:
    if run.settings.width == 1 or not is_flat(run):
        return None
    mean, low, high = pass_at_1(run)
    return share(mean, (low, high))


def _vote_table(recipe: EtsRecipe, votes: Votes) -> Table:
    published_rows = published.REBASE_TABLE_4.get(recipe.published or "", ())
    at = published.REBASE_WIDTH.get(recipe.published or "")
    theirs = {(row.search, row.vote): (row.math500, row.gsm8k) for row in published_rows}
    column = {"math500": 0, "gsm8k": 1}.get(str(recipe.settings.get("data", "")))
    rows: list[tuple[Cell, ...]] = []
    for (width, name), by_rule in votes.items():
        for rule, run in by_rule.items():
            summary = run.summary
            assert summary.accuracy is not None
            figure = (
                f"{theirs[name, rule][column] / 100:.3f} at width {at}"
                if (name, rule) in theirs and column is not None
                else None
            )
            gain = None if rule == "majority" else difference(*compared(run, by_rule["majority"]))
            rows.append((width, name, rule, share(summary.accuracy, summary.accuracy_ci95), gain, figure or UNKNOWN))
    columns = (
        "width",
        "search",
        "vote",
        "accuracy, 95% interval",
        "less majority's, paired 95%",
        "published (REBASE, Table 4)",
    )
    return Table("votes", "Votes over the same trees", columns, tuple(rows), ("No model is asked again for these.",))


def _baseline_tables(recipe: EtsRecipe) -> list[Table]:
    """REBASE's own tables for the recipe's model; for others none would be comparable."""
    if recipe.published is None:
        return []
    name = recipe.published
    width = published.REBASE_WIDTH[name]
    rows = tuple((row.search, row.vote, row.math500, row.gsm8k) for row in published.REBASE_TABLE_4[name])
    columns = ("search", "vote", "MATH500, %", "GSM8K, %")
    tables = [Table("rebase-4", f"REBASE (arXiv 2408.00724), Table 4, {name}, width {width}", columns, rows)]
    compute = tuple(
        (row.search, row.width, f"{row.flops:.3g}", row.accuracy)
        for row in published.REBASE_TABLE_1
        if row.model == name
    )
    if compute:
        columns = ("search", "width", "FLOPs", "MATH500, weighted vote, %")
        tables.append(Table("rebase-1", f"REBASE (arXiv 2408.00724), Table 1, {name}", columns, compute))
    return tables


def _claims(done: Runs, votes: Votes) -> tuple[Claim, ...]:
    claims = []
    widths = list(dict.fromkeys(width for width, _ in done))
    for width in widths:
        base = done.get((width, BASELINE))
        if base is None:
            continue
        for name in ("beam", "dvts"):
            if (width, name) in done:
                value, low, high = compared(done[width, name], base)
                detail = f"width {width}, {name} less REBASE {difference(value, low, high)}"
                claims.append(Claim(f"REBASE is not below {name}", "does not hold" if low > 0 else "holds", detail))
        if (width, "ets") in done:
            claims.append(_ets_claim(width, done[width, "ets"], base))
        if (width, "ets") in done and (width, "ets-kv") in done:
            value, low, high = compared(done[width, "ets-kv"], done[width, "ets"])
            detail = f"width {width}, ETS-KV less ETS {difference(value, low, high)}"
            claims.append(
                Claim("ETS-KV is at ETS's accuracy or below", "does not hold" if low > 0 else "holds", detail)
            )
        if (width, SAMPLING) in votes:
            by_rule = votes[width, SAMPLING]
            value, low, high = compared(by_rule["weighted"], by_rule["majority"])
            detail = f"width {width}, {difference(value, low, high)}"
            claims.append(Claim("sampling's weighted vote is above its majority", above(low, high), detail))
    rising = [(width, done[width, BASELINE]) for width in sorted(widths) if (width, BASELINE) in done]
    for (small, fewer), (large, more) in pairwise(rising):
        value, low, high = compared(more, fewer)
        count = min(len(more.records), len(fewer.records))
        detail = f"REBASE, {difference(value, low, high)} on {count} problems"
        claims.append(Claim(f"accuracy rises from width {small} to {large}", above(low, high), detail))
    return tuple(claims)


def _ets_claim(width: int, run: Run, base: Run) -> Claim:
    ratio = _kv_ratio(run, base)
    value, low, high = compared(run, base)
    detail = f"width {width}, {'no' if ratio is None else f'{ratio:.2f}x less'} KV, {difference(value, low, high)}"
    holds = ratio is not None and ratio >= published.ETS_KV_REDUCTION and high >= 0
    text = f"ETS keeps {published.ETS_KV_REDUCTION}x less KV cache than REBASE at its accuracy"
    return Claim(text, "holds" if holds else "does not hold", detail)


def _shown(recipe: EtsRecipe, done: Runs) -> tuple[str, ...]:
    first = next(iter(done.values())).settings
    texts = [
        "Accuracies are shares of all problems; a problem whose search failed stops the reproduction. Intervals are "
        "Wilson's; differences are paired by problem with a bootstrap interval. Equal seeds give equal tokens and "
        "accuracies; seconds depend on the machine and on what else it did.",
    ]
    if first.policy.startswith("mini:"):
        texts.append(
            "The mini models know story arithmetic alone: these tables show that the methods do what the papers say of "
            "them, in direction and in cost, not how much they gain on MATH500 with large models."
        )
    wanted = [(width, name) for width, at_width in recipe.widths.items() for name in at_width.methods or recipe.methods]
    missing = [f"{name} at width {width}" for width, name in wanted if (width, name) not in done]
    if missing:
        texts.append(f"Cells of the paper's table that were {NOT_RUN} here: {', '.join(missing)}.")
    return tuple(texts)
