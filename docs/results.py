"""Writes results.md and its figure from the measurements kept in docs/data (`python docs/results.py`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from plot_widths import plot
from router_tables import routing_parts

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"


def load(name: str) -> dict[str, Any]:
    """One measurement, as its command printed it with --json."""
    report: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return report


def accuracy_table(reports: list[dict[str, Any]]) -> list[str]:
    """Accuracy by method and width, each with its interval."""
    rows = [row | {"problems": report["num_problems"]} for report in reports for row in report["rows"]]
    widths = sorted({row["width"] for row in rows})
    cells = {(row["method"], row["width"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = ["| method | " + " | ".join(f"width {width}" for width in widths) + " |", "|---" * (len(widths) + 1) + "|"]
    for method in methods:
        shown = [_accuracy(cells.get((method, width))) for width in widths]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return lines


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['accuracy']:.3f} ({row['accuracy_lo']:.3f} to {row['accuracy_hi']:.3f})"


def methods(report: dict[str, Any]) -> str:
    """The methods of a report, as --methods takes them."""
    return ",".join(dict.fromkeys(row["method"] for row in report["rows"]))


def cost_table(report: dict[str, Any], width: int) -> list[str]:
    """What each method cost a problem at one width."""
    lines = [
        "| method | policy tokens computed / unique | PRM tokens | KV tokens kept, mean | at most | engine's peak |",
        "|---|---|---|---|---|---|",
    ]
    count = report["num_problems"]
    for row in (row for row in report["rows"] if row["width"] == width):
        lines.append(
            f"| {row['method']} | {row['computed_tokens'] / count:.0f} / {row['unique_tokens'] / count:.0f} "
            f"| {row['prm_tokens'] / count:.0f} | {row['kv_tokens_mean']:.0f} | {row['kv_tokens_peak']:.0f} "
            f"| {row['kv_tokens_engine_peak']:.0f} |"
        )
    return lines


def kv_peaks(*reports: dict[str, Any]) -> str:
    """What the engine's peak of KV slots was beside the ledger's, by method."""
    over: dict[str, float] = {}
    for row in (row for report in reports for row in report["rows"]):
        more = row["kv_tokens_engine_peak"] / row["kv_tokens_ledger_peak"] - 1
        over[row["method"]] = max(over.get(row["method"], 0.0), more)
    equal = ", ".join(method for method, more in over.items() if more == 0)
    more = ", ".join(f"{method} up to {100 * more:.1f}% more" for method, more in over.items() if more > 0)
    text = f"The engine's mean peak of KV slots was the ledger's own figure for {equal}"
    return text + (
        f"; it held more where no leaf waits for another, as steps still being written: {more}." if more else "."
    )


def majority_table(report: dict[str, Any]) -> list[str]:
    """Each method against plain majority at the greatest width, paired by problem."""
    figures = report["figures"]
    width = max(row["width"] for row in report["rows"])
    lines = [f"| method, width {width} | accuracy over majority | 95% interval, paired |", "|---|---|---|"]
    for key, value in figures.items():
        if key.startswith("over_majority_") and key.endswith(f"_{width}"):
            name = key.removeprefix("over_majority_").removesuffix(f"_{width}").replace("_", "-")
            lines.append(f"| {name} | {value:+.3f} | {figures[f'{key}_lo']:+.3f} to {figures[f'{key}_hi']:+.3f} |")
    return lines


def compared_table(report: dict[str, Any], width: int) -> list[str]:
    """Each method against REBASE at one width."""
    lines = [
        "| method | accuracy | less REBASE's, paired 95% | KV tokens, mean | at most | engine's peak "
        "| less KV than REBASE | as a radix cache | problems/s over REBASE's |",
        "|---" * 8 + "|",
    ]
    figures = report["figures"]
    for row in (row for row in report["rows"] if row["width"] == width and "max_kv_tokens" not in row):
        name = row["method"]
        end = "" if name == "ets" else f"_{name.replace('-', '_')}"
        against = ["", "1", "1", "1"]
        if name != "rebase":
            low, high = (figures[f"accuracy_diff_{width}_{side}{end}"] for side in ("lo", "hi"))
            against = [f"{figures[f'accuracy_diff_{width}{end}']:+.3f} ({low:+.3f} to {high:+.3f})"]
            against += [f"{figures[f'{key}_{width}{end}']:.2f}" for key in ("kv_ratio", "kv_ratio_radix", "speedup")]
        difference, ratio, radix, speed = against
        lines.append(
            f"| {name} | {_accuracy(row)} | {difference} | {row['kv_tokens_mean']:.0f} | {row['kv_tokens_peak']:.0f} "
            f"| {row['kv_tokens_engine_peak']:.0f} | {ratio} | {radix} | {speed} |"
        )
    return lines


def prune_table(report: dict[str, Any]) -> list[str]:
    """Milliseconds of the solvers by number of leaves."""
    figures = report["figures"]
    lines = ["| leaves | HiGHS, ms | CBC over HiGHS | whole selection, ms |", "|---|---|---|---|"]
    for size in (16, 64, 256, 1024):
        cells = (f"{figures[f'{key}_{size}']:.3g}" for key in ("highs_ms", "cbc_over_highs", "select_ms"))
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return lines


def embedder_table(report: dict[str, Any]) -> list[str]:
    """What embedders cost and do."""
    figures = report["figures"]
    lines = [
        "| embedder | other wording, 10% / 50% / 90% | other result | other numbers | ms for 64 steps "
        "| part of the search | accuracy less REBASE's | less KV |",
        "|---" * 8 + "|",
    ]
    for name in ("tfidf", "minilm", "prm"):
        spreads = (
            " / ".join(f"{figures[f'{kind}_{name}_{decile}']:.3f}" for decile in (10, 50, 90))
            for kind in ("wording", "result", "numbers")
        )
        milliseconds = figures.get(f"ms_{name}_64")
        low, high = (figures[f"accuracy_diff_{name}_{side}"] for side in ("lo", "hi"))
        lines.append(
            f"| {name} | {' | '.join(spreads)} | {'' if milliseconds is None else f'{milliseconds:.1f}'} "
            f"| {figures[f'feature_share_{name}']:.1%} "
            f"| {figures[f'accuracy_diff_{name}']:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"| {figures[f'kv_ratio_{name}']:.2f} |"
        )
    return lines


def ets_section() -> list[str]:
    """ETS against REBASE, its solvers and its embedders."""
    wide, others, narrow = load("methods-64"), load("methods-64-others"), load("methods-16")
    prune, embedders = load("prune"), load("embedders")
    speeds = {name: wide["figures"][f"pool_speedup_64{end}"] for name, end in (("ETS", ""), ("ETS-KV", "_ets_kv"))}
    shares = [report["figures"][f"select_share_{w}"] for report, w in ((narrow, 16), (wide, 64))]
    gain = [wide["figures"][f"coverage_gain_64{side}"] for side in ("", "_lo", "_hi")]
    return [
        "## ETS against REBASE",
        f"`ets bench methods --limit {wide['num_problems']} --widths 64 --methods {methods(wide)} --json` and "
        f"`--limit {narrow['num_problems']} --widths 16` with all methods: "
        f"the same problems of {wide['data']} and "
        "the same seeds for all, in turns. KV tokens are unique tokens of the trajectories kept "
        "after a selection, the prompt's included: mean over the steps of a problem, and the most. The engine's peak "
        "is what its pool really held for a problem, candidates before pruning included. `as a radix cache`: siblings "
        "of equal ids counted once for both. `ets-paper` is the paper's program, which allocates again by rewards "
        "alone; `ets`, the default, counts coverage as a chance and leaves the width of pruned leaves in their "
        "cluster.",
        "Width 64:",
        "\n".join(compared_table(wide, 64)),
        f"The other methods, on the first {others['num_problems']} of these (`--limit {others['num_problems']} "
        f"--widths 64 --methods {methods(others)}`; other programs ran beside it, so the last column says little):",
        "\n".join(compared_table(others, 64)),
        "Width 16:",
        "\n".join(compared_table(narrow, 16)),
        "Clusters earn their price, the reward for covering them and the width they keep together: at width 64 ETS "
        f"less ETS-KV is {gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f}) in accuracy, with less KV. "
        f"Selection, clusters included and embedding excluded, took {shares[0]:.1%} of the wall time at width 16 and "
        f"{shares[1]:.1%} at 64.",
        f"Under a fixed pool of {wide['figures']['pool_kv_tokens']} KV tokens for each engine, two of REBASE's peaks "
        f"at width 64, with {wide.get('pool_limit', 64)} problems, 16 at a time: "
        + " and ".join(
            f"{name} solved {speed:.2f} times as many problems per second as REBASE" for name, speed in speeds.items()
        )
        + ".",
        "## The pruning program",
        f"`ets bench prune --repeats {prune['repeats']} --json`: recorded and synthetic trees of depth 3 and 8, "
        "solvers interleaved in one process, medians. CBC solves the paper's formulation through PuLP.",
        "\n".join(prune_table(prune)),
        "## What compares steps",
        f"`ets bench embedders --limit {embedders['num_problems']} --json` ({embedders['data']}, width "
        f"{embedders['width']}): cosine distances of two candidates of one level, by what they differ in, and what ETS "
        "(its former default) does with each embedder. Hashed words are the default: they cost next to nothing and "
        "lose nothing here. The reward model's hidden states tell results apart best and need no second model, but "
        "the local engine.",
        "\n".join(embedder_table(embedders)),
    ]


def reproduced() -> list[str]:
    """The pages that `ets repro PAPER --recipe mini --out docs/repro` wrote, below headings of this one."""
    parts = ["## The papers' tables, from the `mini` recipes"]
    for file in sorted((HERE / "repro").glob("*.md"), reverse=True):
        text = file.read_text(encoding="utf-8").strip()
        text = re.sub(r"^##", "###", text.removeprefix("# Reproduction").strip(), flags=re.MULTILINE)
        parts += [
            f"`ets repro {file.stem} --recipe mini --out docs/repro`:",
            re.sub(r"\]\((?=[\w-]+\.png)", "](repro/", narrowed(text)),
        ]
    return parts


def narrowed(text: str) -> str:
    """Tables without wall seconds and columns that hardly any row fills, which the recipe's own page has."""

    def without_gaps(match: re.Match[str]) -> str:
        rows = [line.strip("|").split("|") for line in match[0].splitlines()]
        filled = [sum(bool(row[place].strip()) for row in rows[2:]) for place in range(len(rows[0]))]
        kept = [
            place
            for place, number in enumerate(filled)
            if 8 * number >= len(rows) - 2 and rows[0][place].strip() != "wall seconds a problem"
        ]
        return "".join(f"|{'|'.join(row[place] for place in kept)}|\n" for row in rows)

    return re.sub(r"(?:^\|.*\|\n)+", without_gaps, text, flags=re.MULTILINE)


def page() -> str:
    """The whole page."""
    widths, wide, majority = load("widths"), load("widths-64"), load("majority")
    engine, check = load("engine"), load("mini-check")
    work = [value for key, value in widths["figures"].items() if "_work_" in key]
    speed, gate = engine["figures"], check["gate"]
    gate_lines = [
        f"| `{name}` | {line['value']:.3f} | {'' if line['low'] is None else line['low']} to "
        f"{'' if line['high'] is None else line['high']} | {'yes' if line['passed'] else 'no'} |"
        for name, line in gate.items()
    ]
    parts = [
        "# Results",
        "Measured on busy 2-core machines (24 GiB), torch 2.13.0 CPU, float32, with the shipped mini family. The "
        "models know story arithmetic alone: these figures say that the methods work and what they cost, not how much "
        "they would gain on a large model. Each table is rendered by `python docs/results.py` from the JSON that the "
        "command above it printed, kept in `docs/data/`.",
        "**What was recorded when.** `ets repro ets`, `ets repro arbitrage`, accuracy over width, and [ETS against "
        "REBASE](#ets-against-rebase) (its first table and width 16) were recorded again on 2026-11-27, since two "
        "things had changed: a step's seed comes from its path, so every sampled tree is another one, and `ets` is "
        "today's default, another program than the paper's with other weights ([concepts](concepts.md#ets)). They "
        "ran on an Intel Xeon with two cores, other programs beside: tokens and accuracies are exact, **wall "
        "seconds and throughput by them are not to be relied on** (ETS-KV's 0.45x at width 16 is a wait: its last "
        "hundred problems took seven times as long as the hundred before); ratios of CPU seconds say more. "
        "Arbitrage's latencies alone were taken with nothing else running.",
        "Against us, in the first table: REBASE's accuracy at width 16 is now 0.963, where it was 0.970, and ETS's "
        "0.953, where it was 0.960, both within their intervals; ETS-KV at width 16 is now below REBASE beyond its "
        "interval, and beam, which was, no longer is; the best alone, by REBASE at 256, fell from 0.583 to 0.500 (12 "
        "problems). `ets-paper` at width 16 keeps 1.18 times less KV cache than REBASE, where it kept 1.30 times "
        "less. For us: ETS keeps 6.5 times less at width 64, where the former program kept 4.7 times less, and 22 "
        "times less at 256, 8 times before. In [accuracy over width](#accuracy-over-width), against us, best-of-n at "
        "width 16 is now above REBASE (0.980 and 0.960, before 0.940 and 0.960), and DVTS at width 4 has 0.780, "
        "before 0.850. Other figures moved within their intervals, by the seeds.",
        "Of `ets repro arbitrage` every greedy router's row is as before, to the last digit; `random` draws other "
        "steps, and the ablations, which are trained anew, moved in the third digit. Its latencies: a target call "
        "costs less than it did, so for models as small as these all routers, and the target alone, now take about "
        "as long (before, Arbitrage at 0.7 was 1.33 times faster than RSD; now 1.09).",
        "**All other tables are of 2026-11-22**, on an AMD EPYC: their sampled searches ran by former seeds (run "
        "again, single figures move within their intervals), and `ets` in them is the former default.",
        *reproduced(),
        "## Accuracy over width",
        f"`ets bench widths --limit {widths['num_problems']} --methods {methods(widths)} --json` "
        f"({widths['num_problems']} problems of {widths['data']}, seed {widths['seed']}); width 64 with `--limit "
        f"{wide['num_problems']} --widths 64 --methods {methods(wide)}`: fewer problems, to be compared within its "
        "column. 95% Wilson intervals in brackets. Greedy is "
        "width 1 at temperature 0. Every method at width 1 is one sampled chain.",
        "\n".join(accuracy_table([widths, wide])),
        "![accuracy over width](widths.png)",
        "Majority voting hardly rises: the models' slips are systematic, so their wrong answers agree with each "
        "other. What rises is what a reward model can tell apart:",
        "\n".join(majority_table(majority)),
        f"({majority['num_problems']} problems: `ets bench widths --limit {majority['num_problems']} --widths 16 "
        f"--methods {methods(majority)} --json`, in `docs/data/majority.json`.)",
        "## Cost at width 16",
        "The same runs, per problem. Tokens computed are below the unique tokens of the tree because the last token of "
        "a step that is never continued need not be read.",
        "\n".join(cost_table(widths, 16)),
        f"Over all methods and widths the work ratio (computed over unique tokens) lay between {min(work):.3f} and "
        f"{max(work):.3f}, policy and reward model alike. {kv_peaks(widths, wide)}",
        *ets_section(),
        *routing_parts(load("routers"), load("router-eval"), load("pipeline")),
        "## Speed of the in-process engine",
        f"`ets bench engine --repeats {engine['repeats']} --json`: the mini target, 64 leaves, 8 levels, against "
        "`transformers.generate` with a "
        "padded batch doing the same schedule, interleaved in one process; medians.",
        "\n".join(
            [
                "| figure | value |",
                "|---|---|",
                *(f"| `{name}` | {value:.3g} |" for name, value in speed.items() if isinstance(value, int | float)),
            ]
        ),
        "## The mini family's gate",
        f"`ets mini check --json`: {check['num_problems']} problems of mini:{check['split']}, seeds "
        f"{' and '.join(check['per_seed'])}, means over the seeds.",
        "\n".join(["| figure | value | gate | met |", "|---|---|---|---|", *gate_lines]),
        "The intervals and all other figures are in `docs/data/mini-check.json`; what they mean is in "
        "[mini-family.md](mini-family.md).",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    from search.studies.router_table import plot_projected

    plot([load("widths"), load("widths-64")], HERE / "widths.png")
    plot_projected(load("routers")["rows"], HERE)
    (HERE / "results.md").write_text(page(), encoding="utf-8")
