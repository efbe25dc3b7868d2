"""The part of results.md on routing, from routers.json and router-eval.json (`docs/results.py` calls it)."""

from __future__ import annotations

from typing import Any

KINDS = {
    "random": "random",
    "rsd": "RSD",
    "oracle_prm": "oracle by the reward model",
    "probe": "probe on the draft's states",
    "arbitrage": "Arbitrage",
    "oracle": "oracle by the exact checker",
}
SHOWN = ("never", "always", "random:0.2", "rsd:0.7", "judge:4", "oracle:0.05", "exact")


def routing_parts(report: dict[str, Any], evaluation: dict[str, Any], pipeline: dict[str, Any]) -> list[str]:
    """Paragraphs and tables, in order."""
    figures, held_out = report["figures"], evaluation["figures"]
    matched = f"arbitrage:{figures['matched_threshold']:g}"
    wanted = (*SHOWN[:4], matched, *SHOWN[4:])
    rows = [row for name in dict.fromkeys(wanted) for row in report["rows"] if row["router"] == name]
    pairs = [pair["name"] for pair in report["projection"]["pairs"]]
    return [
        "## Routing: Arbitrage against RSD",
        f"`ets router eval mini:router DIR --json` on {held_out['num_pairs']} pairs of steps from "
        f"{held_out['num_problems']} problems of {evaluation['origin']['data'][0]}, greedy, the same pairs for both "
        "(`docs/data/router-eval.json`). Better: the exact checker calls only the target's step right. "
        "Gain: steps righted by escalating a share of the steps, first by the router's estimate, then by the reward "
        "model's 1 - s_d; intervals by bootstrap over problems.",
        "\n".join(_eval_table(held_out)),
        f"`ets bench routers --limit {report['num_problems']} --json`: problems of {report['data']}, width 1, greedy, "
        "every router over its thresholds, from recorded greedy steps that all routers share (an ordinary search gives "
        f"the same answers: {figures['online_equal']:.1%} of {figures['num_timed']} problems a router agreed). "
        "A few of its rows; all are in `docs/data/routers.json`:",
        "\n".join(_router_table(rows)),
        "![accuracy against acceptance](routers-acceptance.png)",
        "\n".join(_comparison_table(figures, pairs)),
        "The router and the reward model are as large as the mini target, so FLOPs and seconds of the mini run say "
        "little for Arbitrage or for RSD: never escalating is cheapest, and the target alone comes next. The same "
        "traces *projected* to the papers' sizes "
        f"({', '.join(_sizes(pair) for pair in report['projection']['pairs'])} billion parameters for draft, target, "
        "and router or reward model), batch 1, "
        f"{_hardware(report['projection']['hardware'])}: a model of cost, not a measurement.",
        "![accuracy against projected latency](routers-latency.png)",
        f"Wall time, one problem at a time on local engines in one process, {figures['num_timed']} problems:",
        "\n".join(_time_table(report["timed"])),
        f"Pipelined: {figures['pipeline_equal']} of {figures['num_timed']} chains equal to the last node, "
        f"{figures['pipeline_speedup']:.2f}x the speed. The engines of one process share one worker thread: what the "
        "draft writes ahead delays the router's answer, so there is little to gain before they run apart.",
        _pipeline_text(pipeline),
        f"ETS at width 16, temperature 1, {_ets_count(report)} problems, seed {report['seed']}, with the target alone, "
        f"the draft alone, and both under {report['ets_router']}:",
        "\n".join(_ets_table(report)),
    ]


def _pipeline_text(report: dict[str, Any]) -> str:
    figures = report["figures"]
    return (
        "On SGLang servers of their own for draft, target and reward model, all on the same two cores (`make "
        'sglang-cpu SERVE="draft:30010 target:30011 prm:30012"`, then `ets bench pipeline --limit '
        f"{figures['num_problems']} --repeats {report['repeats']} --engine ... --draft-engine ... --router-engine ... "
        f"--json`; {report['router']}): {figures['pipeline_speedup']:.2f}x the speed, "
        f"{figures['pipeline_speedup_min']:.2f} to {figures['pipeline_speedup_max']:.2f} over the repeats, and "
        f"{figures['pipeline_equal']} of {figures['num_problems']} chains equal in all of them. What it can gain at "
        "most is the time of judging the steps that stay."
    )


def _bounded(figures: dict[str, Any], key: str, form: str = "+.4f") -> str:
    value, low, high = (figures[f"{key}{end}"] for end in ("", "_lo", "_hi"))
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def _eval_table(figures: dict[str, Any]) -> list[str]:
    lines = ["| figure | router | 1 - s_d |", "|---|---|---|"]
    for name, key in (
        ("AUC, the target's step is better (checker)", "auc"),
        ("AUC, advantage above the router's margin", "auc_advantage"),
        ("AUC, advantage above 0 (the paper's label)", "auc_any_advantage"),
        ("Spearman with the advantage", "spearman"),
    ):
        lines.append(f"| {name} | {figures[key]:.4f} | {figures[f'{key}_prm']:.4f} |")
    for share in ("05", "10", "20", "40"):
        lines.append(
            f"| steps righted at a share of {int(share)}%; difference {_bounded(figures, f'gain_vs_prm_{share}')} "
            f"| {figures[f'gain_{share}']:.4f} | {figures[f'gain_prm_{share}']:.4f} |"
        )
    return lines


def _router_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| router | problems | accuracy | target's share | target calls | draft tokens kept, dropped | target tokens "
        "| in vain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy = f"{row['accuracy']:.3f} ({row['accuracy_lo']:.3f} to {row['accuracy_hi']:.3f})"
        drafted = f"{row['draft_tokens_kept']:.0f}, {row['draft_tokens_dropped']:.0f}"
        lines.append(
            f"| {row['router']} | {row['num_problems']} | {accuracy} | {row['target_share']:.3f} "
            f"| {row['target_calls']:.2f} | {drafted} | {row['target_tokens_kept']:.0f} | {row['waste']:.3f} |"
        )
    return lines


def _comparison_table(figures: dict[str, Any], pairs: list[str]) -> list[str]:
    lines = ["| figure | value (95% interval over problems) |", "|---|---|"]
    for kind, name in reversed(KINDS.items()):
        if f"auc_{kind}" not in figures:
            continue  # data without an exact checker
        lines.append(f"| area under accuracy against share, {name} | {_bounded(figures, f'auc_{kind}', '.3f')} |")
    for share in ("10", "20", "30", "mean"):
        where = "mean of these" if share == "mean" else f"at a share of {share}%"
        gain = _bounded(figures, f"accuracy_gain_vs_rsd_{share}", "+.3f")
        lines.append(f"| accuracy of Arbitrage less RSD, {where} | {gain} |")
    keys = [("target calls", "target_calls"), ("FLOPs of the mini run", "flops")]
    for pair in pairs:
        for what in ("flops", "seconds"):
            keys.append((f"projected {what}, {pair.replace('_', '/')}", f"projected_{what}_{pair}"))
    for name, key in keys:
        label = f"{key}_ratio_rsd_over_arbitrage"
        shown = "not reached" if figures[label] is None else _bounded(figures, label, ".2f")
        lines.append(f"| RSD over Arbitrage at the accuracy of rsd:0.7: {name} | {shown} |")
    return lines


def _time_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| router | seconds a problem | draft | target | router | FLOPs a problem, all models |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        models = row["models"]
        count = row["num_problems"]
        seconds = [
            f"{models[role]['seconds'] / count:.3f}" if role in models else "" for role in ("draft", "target", "router")
        ]
        flops = sum(model["flops"] for model in models.values()) / count
        lines.append(f"| {row['router']} | {row['seconds_per_problem']:.3f} | {' | '.join(seconds)} | {flops:.3g} |")
    return lines


def _ets_count(report: dict[str, Any]) -> int:
    return int(report["ets"][0]["num_problems"])


def _ets_table(report: dict[str, Any]) -> list[str]:
    figures = report["figures"]
    lines = ["| writer | accuracy | draft tokens | target tokens | KV tokens kept, mean |", "|---|---|---|---|---|"]
    for row in report["ets"]:
        models = row["models"]
        draft = models["draft"]["sampled_tokens"] if "draft" in models else 0
        target = models["target"]["sampled_tokens"] if "target" in models else 0
        if row["writer"] != "routed":
            only = models["policy"]["sampled_tokens"]
            draft, target = (only, 0) if row["writer"] == "draft" else (0, only)
        lines.append(
            f"| {row['writer']} | {row['accuracy']:.3f} ({row['accuracy_lo']:.3f} to {row['accuracy_hi']:.3f}) "
            f"| {draft} | {target} | {row['kv_tokens_mean']:.0f} |"
        )
    lines += [
        "",
        f"Target tokens of the target alone over those of the routed writer: {figures['ets_target_tokens_saved']:.2f}. "
        f"Paired differences in accuracy: routed less target alone {_bounded(figures, 'ets_vs_target', '+.3f')}, "
        f"routed less draft alone {_bounded(figures, 'ets_vs_draft', '+.3f')}.",
    ]
    return lines


def _sizes(pair: dict[str, Any]) -> str:
    return f"{pair['draft']:g}/{pair['target']:g}/{pair['router']:g}"


def _hardware(values: dict[str, Any]) -> str:
    return (
        f"{values['bytes_per_parameter']:g} bytes a parameter, {values['bytes_per_second'] / 1e9:g} GB/s and "
        f"{values['flops_per_second'] / 1e12:g} TFLOP/s a device, models above "
        f"{values['parameters_per_device'] / 1e9:g} billion parameters spread over several"
    )
