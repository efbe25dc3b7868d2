"""Writes choosing.md from the measurements kept in docs/data (`make docs`): what to choose when, with the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE / "choosing.md"


def load(name: str) -> dict[str, Any]:
    """One measurement, as its command printed it with --json."""
    report: dict[str, Any] = json.loads((HERE / "data" / f"{name}.json").read_text(encoding="utf-8"))
    return report


def row_of(report: dict[str, Any], method: str, width: int) -> dict[str, Any]:
    """A method's row at a width, on an engine whose cache has no limit."""
    found: dict[str, Any] = next(
        row
        for row in report["rows"]
        if row["method"] == method and row["width"] == width and "max_kv_tokens" not in row
    )
    return found


def accuracy(row: dict[str, Any]) -> str:
    """Accuracy with its 95% interval."""
    return f"{row['accuracy']:.3f} ({row['accuracy_lo']:.3f} to {row['accuracy_hi']:.3f})"


def against(report: dict[str, Any], key: str, width: int, method: str, form: str) -> str:
    """A figure of a method against REBASE; with its paired 95% interval where it has one."""
    end = "" if method == "ets" else f"_{method.replace('-', '_')}"
    figures = report["figures"]
    shown = f"{figures[f'{key}_{width}{end}']:{form}}"
    if f"{key}_{width}_lo{end}" in figures:
        low, high = (figures[f"{key}_{width}_{side}{end}"] for side in ("lo", "hi"))
        shown += f" ({low:{form}} to {high:{form}})"
    return shown


def methods_table(reports: list[dict[str, Any]], width: int) -> str:
    """Every method against REBASE on the same problems; reports later in the list add what is not there yet."""
    lines = [
        "| method | problems | accuracy | minus REBASE's, paired | KV tokens kept | times less KV than REBASE "
        "| problems per second, times REBASE's |",
        "|---" * 7 + "|",
    ]
    seen: set[str] = set()
    for report in reports:
        for method in dict.fromkeys(row["method"] for row in report["rows"] if row["width"] == width):
            if method in seen:
                continue
            seen.add(method)
            row = row_of(report, method, width)
            compared = ["", "1", "1"]
            if method != "rebase":
                compared = [
                    against(report, "accuracy_diff", width, method, "+.3f"),
                    against(report, "kv_ratio", width, method, ".2f"),
                    against(report, "speedup", width, method, ".2f"),
                ]
            lines.append(
                f"| {method} | {report['num_problems']} | {accuracy(row)} | {compared[0]} "
                f"| {row['kv_tokens_mean']:.0f} | {' | '.join(compared[1:])} |"
            )
    return "\n".join(lines)


def plain_table(report: dict[str, Any], width: int) -> str:
    """The methods that never prune."""
    lines = ["| method | width | accuracy | KV tokens kept |", "|---|---|---|---|"]
    for method, wide in (("greedy", 1), ("self-consistency", width), ("best-of-n", width)):
        row = row_of(report, method, wide)
        lines.append(f"| {method} | {wide} | {accuracy(row)} | {row['kv_tokens_mean']:.0f} |")
    return "\n".join(lines)


def routed_table(report: dict[str, Any]) -> str:
    """ETS with the target alone, the draft alone, and both under a router."""
    lines = ["| who writes | problems | accuracy | target tokens |", "|---|---|---|---|"]
    for row in report["ets"]:
        models = row["models"]
        tokens = models["target"]["sampled_tokens"] if "target" in models else 0
        if row["writer"] == "target":
            tokens = models["policy"]["sampled_tokens"]
        lines.append(f"| {row['writer']} | {row['num_problems']} | {accuracy(row)} | {tokens} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    wide, others, narrow = load("methods-64"), load("methods-64-others"), load("methods-16")
    widths, routers, embedders = load("widths"), load("routers"), load("embedders")
    plain = {method: row_of(widths, method, 16)["accuracy"] for method in ("self-consistency", "best-of-n")}
    sampled = row_of(widths, "self-consistency", 1)["accuracy"]
    figures = routers["figures"]
    routed = [f"{figures[f'ets_vs_target{end}']:+.3f}" for end in ("", "_lo", "_hi")]
    ratio = wide["figures"]["kv_ratio_64"]
    parts = [
        "# Choosing a method",
        "Unless another model is named, the figures on this page were measured on the mini family: small models that "
        "know story arithmetic alone. "
        "They say how the methods differ there, not how they would rank on your model and your problems. "
        "[Results](results.md) has all of them with their commands; this page is written from the same files by "
        "`docs/choosing.py`. Measure the two or three that come into question on problems of your own, with the same "
        "seed for all (`--plot` needs `.venv/bin/pip install -e '.[plots]'`):",
        "    ets eval --data problems.jsonl --policy POLICY --prm PRM --method rebase --width 16 "
        "--until spent --out runs/rebase\n"
        "    ets eval --data problems.jsonl --policy POLICY --prm PRM --method ets --width 16 "
        "--until spent --out runs/ets\n"
        "    ets report runs/rebase runs/ets --plot plots",
        "## In short",
        "\n".join(
            [
                "| you have | take |",
                "|---|---|",
                "| no time for more than one answer | `greedy` |",
                "| no reward model | `self-consistency` first; to search, `rebase` with "
                "`--prm confidence:mean-logprob`, and not `ets`: [Without a reward model](verifiers.md) |",
                "| a reward model that you trust only on whole solutions | `best-of-n` |",
                "| a step-wise reward model, and memory to spare | `rebase`, or `dvts` |",
                "| a step-wise reward model, and a wide search (64 was measured) or a full KV cache | `ets` |",
                "| a draft model several times cheaper than the target | a router: `--writer arbitrage`, below |",
            ]
        ),
        "## Without a search",
        "These methods never prune. What they reach is what a search has to beat. "
        f"{widths['num_problems']} problems of {widths['data']}:",
        plain_table(widths, 16),
        f"Voting by majority hardly helps here: {plain['self-consistency']:.2f} at width 16 against {sampled:.2f} for "
        "one sample, since the models' slips are systematic and their wrong answers agree. The same sixteen solutions "
        f"weighted by the reward model reach {plain['best-of-n']:.2f}. If your model's best-of-n is no better than its "
        "self-consistency, the reward model adds nothing, and no search that is steered by it will.",
        "## At width 16",
        methods_table([narrow], 16),
        "Intervals are 95%; KV tokens kept are the mean over the steps of a problem. At this width most of the methods "
        "are hard to tell apart by accuracy, and DVTS holds not much more KV cache than ETS. Particle filtering, on "
        f"the {widths['num_problems']} problems of the table above: {accuracy(row_of(widths, 'particle', 16))} with "
        f"{row_of(widths, 'particle', 16)['kv_tokens_mean']:.0f} KV tokens.",
        "## At width 64",
        methods_table([wide, others], 64),
        "Beam search, DVTS and the paper's settings of ETS (`ets-paper`) were run by themselves, with other programs "
        "beside them: their last column says little. ETS holds "
        f"{ratio:.1f} times less KV cache than REBASE and "
        f"differs from it by {against(wide, 'accuracy_diff', 64, 'ets', '+.3f')} in accuracy. Under a fixed pool of "
        f"{wide['figures']['pool_kv_tokens']} KV tokens it solved {wide['figures']['pool_speedup_64']:.2f} times as "
        "many problems per second as REBASE. DVTS, which needs no embedder and no solver, is the next best here. Beam "
        "search holds hardly more than ETS and loses much accuracy: it keeps the best leaves whatever they say.",
        "## When not to use ETS",
        "\n".join(
            [
                "- **No reward model.** With `--prm none` all rewards are equal, and ETS prunes by cost and wording "
                "alone. By the policy's confidence it lost 17 points to REBASE on Qwen2.5-Coder-1.5B, a real model "
                "([measured](real.md#search-methods-on-qwen)): [Without a reward model](verifiers.md) says what to do.",
                "- **A narrow width, or short solutions.** The tree is small, and so is what pruning saves.",
                "- **Memory is not what limits you.** ETS saves cache. No comparison here shows it more accurate than "
                "REBASE beyond its interval. With one problem at a time on a large GPU, take REBASE or DVTS.",
                "- **Steps that the embedder cannot tell apart.** The default one compares words (`tfidf`), which is "
                f"enough for this data; `--embedder minilm` costs {embedders['figures']['feature_share_minilm']:.1%} "
                "of the search on a CPU, and `--embedder prm` needs the reward model on the local engine. For code or "
                "proofs nothing was measured: look at the clusters in `ets view` first.",
                "- **`ets-kv` in place of ETS.** It leaves out the clusters. Against REBASE at width 64 it was "
                f"{against(wide, 'accuracy_diff', 64, 'ets-kv', '+.3f')}, with more KV cache than ETS. It is there to "
                "compare with.",
                "- **You want the paper's own program.** `--method ets-paper`.",
            ]
        ),
        "## With a draft and a target",
        "A router saves target calls. It pays where the target is much dearer than draft and router together. In the "
        "mini family the router is as large as the target, so a routed chain computes more than the target alone, "
        "whatever it saves in target tokens ([Results](results.md) has both).",
        f"Chains (`--method chain`), {routers['num_problems']} problems, at equal shares of target steps: Arbitrage "
        f"minus RSD is {figures['accuracy_gain_vs_rsd_mean']:+.3f} ({figures['accuracy_gain_vs_rsd_mean_lo']:+.3f} to "
        f"{figures['accuracy_gain_vs_rsd_mean_hi']:+.3f}) in accuracy, the mean over shares of 10, 20 and 30%. At "
        f"30% alone it is {figures['accuracy_gain_vs_rsd_30']:+.3f} "
        f"({figures['accuracy_gain_vs_rsd_30_lo']:+.3f} to {figures['accuracy_gain_vs_rsd_30_hi']:+.3f}). RSD needs no "
        "router to be trained. The mini router learned from an exact checker of steps, which real data seldom has; one "
        "that learned from the reward model's scores gained about a third of that, on 500 problems.",
        f"At every node of a search by an earlier version of ETS (width 16, {routers['ets_router']}):",
        routed_table(routers),
        f"Routed minus target alone: {routed[0]} ({routed[1]} to {routed[2]}), with "
        f"{figures['ets_target_tokens_saved']:.2f} times fewer target tokens. "
        "[Routers](routers.md) says how to train one for your own pair.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/choosing.md is old; run `make docs`")
    PAGE.write_text(page(), encoding="utf-8")
