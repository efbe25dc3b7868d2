"""A comparison as a page: its table, accuracy over cost, and which run solved which problem, down to the trees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from search.results.record import ProblemRecord
from search.runs.compare import Comparison, Row
from search.runs.report import Run

_COLOURS = ("#1f5fae", "#a13a1c", "#2e7d4f", "#8a5a00", "#6a4fb0", "#b0306a", "#2f7f8f", "#555555")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 320, 52, 44, 14, 130
_TEXT_CHARACTERS = 140
_VERDICTS = {True: ("right", "✓"), False: ("wrong", "✗"), None: ("", "-")}
"""A cell's class and mark."""

_STYLE = """
:root { color-scheme: light dark; --rule: #8885; --good: #2e7d4f; --bad: #a13a1c; }
@media (prefers-color-scheme: dark) { :root { --good: #79c99a; --bad: #f0906f; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.2rem auto; max-width: 82rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 1.6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } caption { display: none; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--rule); }
th, td { text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.problem { max-width: 34rem; overflow-wrap: anywhere; }
body:has(#only:checked) tr.shared, body:has(#differ:checked) tr.same { display: none; }
"""


class Verdicts(NamedTuple):
    """One problem under every run.

    Attributes:
        record: the first run's.
        correct: by run; None where it cannot be told.
        answers: by run.
    """

    record: ProblemRecord
    correct: tuple[bool | None, ...]
    answers: tuple[str | None, ...]

    @property
    def only(self) -> int | None:
        """The run that alone solved it, by its place."""
        right = [place for place, one in enumerate(self.correct) if one]
        return right[0] if len(right) == 1 else None


def verdicts(runs: Sequence[Run]) -> list[Verdicts]:
    """What every run made of the problems that all have, in the order of the first."""
    by_run = [{(one.problem_id, one.problem, one.reference): one for one in run.records} for run in runs]
    rows = []
    for key, record in by_run[0].items():
        if all(key in records for records in by_run):
            told = [records[key] for records in by_run]
            rows.append(Verdicts(record, tuple(one.correct for one in told), tuple(one.answer for one in told)))
    return rows


def compare_page(comparison: Comparison, runs: Sequence[Run], trees: Sequence[str]) -> str:
    """One HTML page without a script, which asks nothing of a network.

    Args:
        comparison: of the runs.
        runs: in its order.
        trees: for each run, the address of its trees' page, seen from this one.
    """
    problems = verdicts(runs)
    title = f"{len(runs)} runs on the same {comparison.num_problems} problems"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<div class="wide">{comparison.table().html()}</div>',
        _plot(comparison.rows),
        _only(comparison.rows, problems),
        _problems(comparison.rows, problems, trees),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _label(rows: Sequence[Row], place: int) -> str:
    """A run in a word: method and width, and its number where that is not enough."""
    names = [f"{row.method}-{row.width}" for row in rows]
    return names[place] if names.count(names[place]) == 1 else f"{names[place]} ({place + 1})"


def _plot(rows: Sequence[Row]) -> str:
    """Accuracy with its interval over the KV cache kept."""
    points = [(place, row) for place, row in enumerate(rows) if row.accuracy is not None and row.interval is not None]
    if not points:
        return "<p>No references, so there is no accuracy to draw.</p>"
    points = [(place, row) for place, row in points if row.kv_tokens_mean is not None]
    if not points:
        return "<p>These servers tell no KV tokens, so there is nothing to draw accuracy over.</p>"
    most = max(row.kv_tokens_mean or 0.0 for _, row in points) * 1.1 or 1.0
    step = 10 ** math.floor(math.log10(most))
    step = next(one for one in (step / 5, step / 2, step, 2 * step) if most / one <= 6)

    def across(value: float) -> float:
        return _LEFT + value / most * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM)

    floor = up(0)
    drawn = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="Accuracy over KV tokens">']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = up(share)
        drawn.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8885"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.2f}</text>')
    for number in range(int(most / step) + 1):
        x = across(number * step)
        drawn.append(f'<text x="{x:.1f}" y="{floor + 16:.1f}" text-anchor="middle">{number * step:,.0f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">KV tokens kept, a problem</text>')
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(dict.fromkeys(row.method for row in rows))}
    for place, row in points:
        assert row.accuracy is not None and row.interval is not None
        x, y, colour = across(row.kv_tokens_mean or 0.0), up(row.accuracy), colours[row.method]
        low, high = up(row.interval[0]), up(row.interval[1])
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(_label(rows, place))}</text>')
    return "<h2>Accuracy over cost</h2>\n" + "".join(drawn) + "</svg>"


def _only(rows: Sequence[Row], problems: Sequence[Verdicts]) -> str:
    """How many problems each run solved alone."""
    counts: Mapping[int, int] = {place: sum(one.only == place for one in problems) for place in range(len(rows))}
    told = ", ".join(f"{_label(rows, place)} {count}" for place, count in counts.items())
    return f"<p>Problems that only one run solved: {escape(told)}.</p>"


def _problems(rows: Sequence[Row], problems: Sequence[Verdicts], trees: Sequence[str]) -> str:
    heads = "".join(f"<th>{escape(_label(rows, place))}</th>" for place in range(len(rows)))
    body = []
    for row in problems:
        kinds = " ".join(
            name
            for name, holds in (
                ("only", row.only is not None),
                ("shared", row.only is None),
                ("same", len(set(row.correct)) == 1 and len(set(row.answers)) == 1),
            )
            if holds
        )
        cells = "".join(
            f'<td class="{_VERDICTS[correct][0]}"><a href="{escape(address)}#{quote(row.record.problem_id, safe="")}">'
            f"{_VERDICTS[correct][1]} {escape(_cut(answer if answer is not None else 'no answer', 24))}</a></td>"
            for correct, answer, address in zip(row.correct, row.answers, trees, strict=True)
        )
        text = escape(_cut(row.record.problem, _TEXT_CHARACTERS))
        reference = escape("" if row.record.reference is None else _cut(row.record.reference, 24))
        name = escape(row.record.problem_id)
        body.append(
            f'<tr class="{kinds}"><td>{name}</td><td class="problem">{text}</td><td>{reference}</td>{cells}</tr>'
        )
    return (
        "<h2>Problems</h2>\n"
        '<p><label><input type="checkbox" id="only"> only those that one run alone solved</label> '
        '<label><input type="checkbox" id="differ"> only those on which runs differ</label></p>\n'
        f'<div class="wide"><table><thead><tr><th>id</th><th>problem</th><th>reference</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cut(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
