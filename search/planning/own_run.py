"""A run that was kept, as what a search of the same model and method will take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from search.config import EvalSettings, build
from search.errors import SearchError
from search.planning.work_ratios import Measured, WorkRatios, tells_apart
from search.results.record import read_json
from search.runs.report import read_run
from search.setup.registry import weights_of


class OwnRun(NamedTuple):
    """What a run that was kept tells of its searches' work; `scored`: by what tells steps apart.

    `tokens_per_second` is None where its engine counted none.
    """

    folder: Path
    method: str
    width: int
    scored: bool
    measured: Measured
    tokens_per_second: float | None


def read_own_run(folder: Path) -> OwnRun:
    """The work of a run that was kept.

    Raises:
        ConfigError: there is none, or nothing finished in it.
        DataError: it cannot be read.
    """
    run = read_run(folder)
    outcomes = [one for record in run.records if (one := record.outcome()) is not None]
    found = WorkRatios.measure(outcomes, run.settings.width)
    scored, settings = tells_apart(run.settings.prm), run.settings
    return OwnRun(folder, settings.method_name, settings.width, scored, found, run.tokens_per_second)


def find_own_run(folder: Path, policy: str, method: str, width: int, scored: bool) -> OwnRun | None:
    """The run below a folder that tells most of such searches: of this policy alone, this method, this kind of scorer.

    Of several that of the nearest width, then that of the most problems. Runs that cannot be read are left out.

    Args:
        folder: whose subfolders `ets eval --out` wrote; there may be none.
        policy: the model as it would be given to `ets eval`; its weights count, where they are at hand.
        method: of the searches to come.
        width: of those.
        scored: whether by what tells steps apart.

    Raises:
        ConfigError: the policy's files cannot be read.
    """
    weights = weights_of(policy)
    found: list[tuple[float, int, Path]] = []
    for file in folder.glob("*/run.json"):
        try:
            kept = read_json(file)
            settings = build(EvalSettings, kept["settings"])
        except (SearchError, KeyError):  # another version's
            continue
        of = kept.get("weights", {}).get("policy")
        same = settings.policy == policy if weights is None or of is None else weights == of
        asked = settings.method_name, settings.writer, tells_apart(settings.prm)
        if same and asked == (method, "model", scored):
            num_problems = sum(1 for _ in (file.parent / "problems").glob("*.json"))
            found.append((abs(math.log(settings.width / width)), -num_problems, file.parent))
    for *_, run in sorted(found):
        try:
            return read_own_run(run)
        except SearchError:  # nothing finished in it
            continue
    return None
