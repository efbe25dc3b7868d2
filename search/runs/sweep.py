"""A grid of settings over data: one process, models loaded once, each cell a run that can be gone on with."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import EvalSettings, build, load_yaml, ungrouped
from search.errors import ConfigError, SearchError
from search.runs.compare import Comparison, compare
from search.runs.evaluation import Evaluation, OnProgress
from search.runs.report import read_run
from search.runs.shared_engines import SharedEngines
from search.setup.resolve import record_of, settle
from search.setup.run_key import config_hash
from search.support.files import write_atomic

COMPARISON_FILE = "compare.json"
_KEYS = ("settings", "grid", "concurrency")

Say = Callable[[str], None]
Bar = Callable[[str, int, int], AbstractContextManager[OnProgress]]
"""Shows the progress of a cell: its label, its problems, and those done before."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder: the values that the grid gives it.
        settings: of the run.
    """

    name: str
    settings: EvalSettings


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep's file says.

    Attributes:
        cells: in the order of the grid; cells that would be the same run are there once.
        concurrency: problems side by side.
        notes: cells that were left out, and what is not used, a line each.
    """

    cells: tuple[Cell, ...]
    concurrency: int
    notes: tuple[str, ...] = ()


def read_sweep(file: Path) -> Sweep:
    """Read a sweep's file and check every cell; no model is loaded.

    The file has `settings` of all cells, and a `grid`: settings with lists of values, of which all combinations are
    run, or a list of such, run one after the other; both in groups, as `--config` takes them. `concurrency` is that of
    `ets eval`.

    Raises:
        ConfigError: the file cannot be read, has no grid, or a cell has a setting that is wrong; names the cell.
    """
    values = load_yaml(file)
    if unknown := sorted(values.keys() - set(_KEYS)):
        raise ConfigError(f"sweep {file}: unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")
    base, grid, concurrency = values.get("settings", {}), values.get("grid"), values.get("concurrency", 8)
    base = ungrouped(EvalSettings, base, f"sweep {file}, settings: ")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"sweep {file}: concurrency = {concurrency!r}: must be a whole number from 1")
    grids = [grid] if isinstance(grid, dict) else grid
    if not isinstance(grids, list) or not grids or not all(isinstance(one, dict) and one for one in grids):
        raise ConfigError(f"sweep {file}: grid must be a mapping of settings to lists of values, or a list of such")
    cells: dict[str, Cell] = {}
    names: set[str] = set()
    notes: list[str] = []
    grids = [ungrouped(EvalSettings, each, f"sweep {file}, grid: ") for each in grids]
    for changes in itertools.chain.from_iterable(map(_combinations, grids)):
        name = _name(changes)
        try:
            settings = build(EvalSettings, {**base, **changes})
            settled = settle(settings)
        except ConfigError as error:
            raise ConfigError(f"sweep {file}, {name}: {error}") from None
        key = config_hash(record_of(settled.settings))
        if key in cells:
            notes.append(f"{name} is the same run as {cells[key].name} and is left out")
            continue
        while name in names:
            name += "+"
        names.add(name)
        cells[key] = Cell(name, settings)
    return Sweep(tuple(cells.values()), concurrency, tuple(notes))


def run_sweep(sweep: Sweep, out: Path, bar: Bar, say: Say = lambda _: None) -> tuple[Comparison | None, list[str]]:
    """Run every cell that is not done, one after the other, on models that are loaded once.

    A cell that fails is said and left; the others go on. Run again, it goes on where it stands.

    Args:
        sweep: what to run.
        out: folder of the runs, one folder a cell; the comparison is kept there too.
        bar: shows progress.
        say: told how data is read, and of what fails.

    Returns:
        The comparison of the cells that have records, None for fewer than two; and what failed, a line each.
    """
    failures = asyncio.run(_run(sweep, out, bar, say))
    runs = []
    for cell in sweep.cells:
        try:
            runs.append(read_run(out / cell.name))
        except SearchError as error:
            if not any(line.startswith(f"{cell.name}: ") for line in failures):
                failures.append(f"{cell.name}: {error}")
    if len(runs) < 2:
        return None, failures
    comparison = compare(runs)
    write_atomic(out / COMPARISON_FILE, json.dumps(comparison.to_dict(), indent=1) + "\n")
    return comparison, failures


async def _run(sweep: Sweep, out: Path, bar: Bar, say: Say) -> list[str]:
    models = SharedEngines()
    failures: list[str] = []
    said = {""}
    try:
        for number, cell in enumerate(sweep.cells):
            try:
                evaluation = Evaluation(cell.settings, out / cell.name)
                if (line := evaluation.data.described(cell.settings.data)) not in said:
                    say(line)
                    said.add(line)
                label = f"{number + 1}/{len(sweep.cells)} {cell.name}"
                await asyncio.to_thread(evaluation.load, models.give)
                with bar(label, len(evaluation.problems), evaluation.num_done) as progress:
                    summary = await evaluation.run(sweep.concurrency, progress, models.give)
                failures += [f"{cell.name}: {line}" for line in summary.failures]
            except SearchError as error:
                failures.append(f"{cell.name}: {error}")
                say(f"failed: {failures[-1]}")
            await models.keep_only(one.settings for one in sweep.cells[number + 1 :])
    finally:
        await models.keep_only(())
    return failures


def _combinations(grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations; a value by itself stands for a list of one."""
    lists: Sequence[list[Any]] = [values if isinstance(values, list) else [values] for values in grid.values()]
    for name, values in zip(grid, lists, strict=True):
        if not values:
            raise ConfigError(f"sweep: grid {name} is an empty list")
    for chosen in itertools.product(*lists):
        yield dict(zip(grid, chosen, strict=True))


def _name(changes: Mapping[str, Any]) -> str:
    """A folder's name: the method by itself, any other setting with its name."""
    words = [str(value) if name == "method" else f"{name}-{_plain(value)}" for name, value in changes.items()]
    return re.sub(r"[^A-Za-z0-9._=,-]+", "-", "_".join(words)).strip("-.")[:120] or "cell"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={one}" for key, one in value.items())
    return str(value)
