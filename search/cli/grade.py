"""`ets grade FILE.jsonl`: answers against references, and graders against each other or against given verdicts."""

from __future__ import annotations

from pathlib import Path

import click

from search.catalogue import GRADERS, PEERS
from search.cli.kinds import FILE
from search.cli.show import tell


@click.command()
@click.argument("file", metavar="FILE.jsonl", type=FILE)
@click.option("--grader", type=click.Choice(list(GRADERS)), default="math", help="what grades")
@click.option("--against", type=click.Choice([*GRADERS, *PEERS]), help="another grader, whose verdicts are laid beside")
@click.option("--solutions", is_flag=True, help="answers are whole solutions, out of which the answer is read")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def grade(file: Path, grader: str, against: str | None, solutions: bool, as_json: bool) -> None:
    """Grade a file of answers: one JSON object a line, with answer, reference and, if known, verdict."""
    from search.runs.grading import grade_file

    grading = grade_file(file, grader, against, solutions=solutions)
    tell(as_json, grading.to_dict(), grading.to_text())
