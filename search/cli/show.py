"""How results look: on a terminal with rich, and anywhere else as plain lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.cli.tree_text import draw_tree, legend, one_line, printable
from search.replay import is_by_depth, rebase_kv_tokens, replay
from search.results.result import Result
from search.runs.summary import count
from search.types import NodeStatus, Reduce

_PLAIN_EVERY_SECONDS = 10.0

GOES_ON = "the same command goes on"
"""What is said of a run that is kept and was interrupted."""


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def tell(as_json: bool, values: Mapping[str, Any], text: str) -> None:
    """What a command came to, on stdout: as one JSON object, or as the text that people read."""
    if as_json:
        print_json(values)
    else:
        sys.stdout.write(f"{text}\n")


def plain_figures(figures: Mapping[str, Any]) -> list[str]:
    """A line for each figure."""
    shown = {
        name: "unknown" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, value in figures.items()
    }
    return [f"{name.replace('_', ' '):34} {value}" for name, value in shown.items()]


def print_result(result: Result, console: Console | None = None, reduce: Reduce = "last") -> None:
    """The problem, the winning solution, the vote, the tree and its cost, in 80 columns.

    Args:
        result: what to print.
        console: where; standard output if None.
        reduce: which reward of a path the search went by.
    """
    console = console or Console(highlight=False, soft_wrap=False)
    console.print(Text("Problem", style="bold"), Text(printable(result.problem.text)), "", sep="\n")
    if result.error is not None:
        console.print(Text(f"Failed: {printable(result.error)}\n", style="bold red"))
    else:
        shown, head = _best(result)
        console.print(Text(head, style="bold"))
        console.print(Text(printable(shown.strip().replace("\n\n", "\n"))))
        console.print(_verdict(result), "", sep="\n")
    if result.tally:
        console.print(_vote_table(result), "")
    _print_tree(result, console)
    console.print("", _cost_table(result, reduce), "", sep="\n")
    console.print(_model_table(result))


def _best(result: Result) -> tuple[str, str]:
    """The solution to show, and what it is: without an answer the one with the highest reward, else the first."""
    if result.answer is not None:
        return result.text, "Best solution"
    if not result.trajectories:
        return "none was finished", "Best solution"
    best = max(result.trajectories, key=lambda trajectory: -1.0 if trajectory.reward is None else trajectory.reward)
    how = "the first of" if best.reward is None else "the highest reward of"
    return best.text or "(empty)", f"No solution has an answer; {how} {len(result.trajectories)}"


def _verdict(result: Result) -> Text:
    if result.answer is None:
        ends = sorted({node.reason for node in result.tree.leaves(NodeStatus.FINISHED)} or {"nothing was finished"})
        return Text(f"\nAnswer: none ({'; '.join(ends)})", style="bold")
    text = Text(f"\nAnswer: {one_line(result.answer)}", style="bold")
    reference = result.problem.answer
    if reference is not None:
        words = {True: "right", False: f"wrong, the reference is {reference}", None: f"undecided beside {reference}"}
        text.append(f"  {words[result.correct]}", style="")
    return text


def _vote_table(result: Result) -> Table:
    table = Table(title="Vote", title_justify="left", box=None, pad_edge=False)
    table.add_column("answer")
    table.add_column("weight", justify="right")
    table.add_column("trajectories", justify="right")
    for answer, weight in list(result.tally.items())[:5]:
        count = sum(trajectory.answer == answer for trajectory in result.trajectories)
        table.add_row(Text(one_line(answer)), f"{weight:.3f}", str(count))
    return table


def _print_tree(result: Result, console: Console) -> None:
    """The tree with what led to no solution folded away."""
    ascii_only = console.options.ascii_only
    lines = draw_tree(result.tree, result.winner, console.width, ascii_only)
    console.print(Text("Tree", style="bold"), Text(legend("draft" in result.models)), sep="\n")
    for line in lines:
        console.print(Text(line.text, style="bold" if line.chosen else "", no_wrap=True, overflow="ignore"))


def _cost_table(result: Result, reduce: Reduce) -> Table:
    stats = result.stats
    table = Table(title="Cost", title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    apart = sum(result.tree[trajectory.node].num_path_tokens for trajectory in result.trajectories)
    rows: list[tuple[str, str, str]] = [
        ("method", f"{result.method}", f"width {result.width}, seed {result.seed}"),
        ("tree", f"{stats.num_nodes}", f"nodes, {stats.num_pruned} pruned, {stats.num_finished} finished"),
        *(
            [("lost", f"{len(result.lost)}", f"branches; the first: {printable(result.lost[0])}")]
            if result.lost
            else []
        ),
        ("policy tokens", count(stats.computed_tokens), f"computed, of {count(stats.unique_tokens)} in the tree"),
        *([("thrown away", f"{stats.tokens_thrown}", "tokens, written ahead in vain")] if stats.tokens_thrown else []),
        ("reward tokens", count(stats.prm_tokens), f"computed, of {stats.prm_unique_tokens} in the tree"),
        *(
            [
                ("KV kept", f"{stats.kv_tokens_mean:.0f}", f"tokens on average, {stats.kv_tokens_peak} at most")
                if stats.kv_tokens_peak
                else ("KV kept", "-", "every solution was a single step, so nothing was selected"),
                *_rebase_row(result, reduce),
                ("KV unshared", f"{apart}", "tokens, had each finished solution a cache of its own"),
            ]
            if stats.kv_tokens_mean is not None
            else []
        ),
        (
            "seconds",
            f"{stats.seconds:.2f}",
            f"policy {stats.seconds_policy:.2f}, reward {stats.seconds_prm:.2f}",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _rebase_row(result: Result, reduce: Reduce) -> list[tuple[str, str, str]]:
    """What REBASE's rule would have kept of the same levels; a search by REBASE itself is another tree."""
    replayed = list(replay(result.tree, result.selections))
    scored = any(node.reward is not None for node in result.tree)
    levels = is_by_depth(result.tree, result.selections)
    if result.method == "rebase" or result.width == 1 or not replayed or not scored or not levels:
        return []
    rebase = sum(rebase_kv_tokens(result.tree, level, result.width, reduce) for level in replayed) / len(replayed)
    kept = sum(level.kv_tokens.kept for level in replayed) / len(replayed)
    share = (rebase - kept) / rebase if rebase else 0.0
    compared = f"{abs(share):.0%} {'less' if share >= 0 else 'more'} is kept"
    return [("KV by REBASE", f"{rebase:.0f}", f"tokens, its rule on the same steps: {compared}")]


def _model_table(result: Result) -> Table:
    """What each model did: tokens written, and those of them dropped for another model's or thrown away."""
    table = Table(title="Models", title_justify="left", box=None, pad_edge=False)
    for name in ("role", "calls", "written", "dropped", "thrown", "seconds", "FLOPs"):
        table.add_column(name, justify="left" if name == "role" else "right")
    for role, cost in result.models.items():
        tokens = (cost.sampled_tokens, cost.dropped_tokens, cost.thrown_tokens)
        flops = "unknown" if cost.flops is None else f"{cost.flops:.3g}"
        table.add_row(role, str(cost.num_calls), *map(count, tokens), f"{cost.seconds:.2f}", flops)
    return table


@contextmanager
def share_progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """As `progress`, of the share that is done: gives what is told how many of how many are done, and a short note."""
    with progress(label, 1000) as bar:
        yield lambda done, total, note: bar(round(1000 * done / total), note)


@contextmanager
def progress(label: str, total: int, done: int = 0, beside: int = 0) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on a terminal, a plain line every ten seconds elsewhere; always on stderr.

    Gives what is told how many are done, and a short note.

    Args:
        label: what is going on.
        total: how many there are to do.
        done: how many were done before.
        beside: how many are worked on side by side; in the mean they are half done, which the time left reckons with.
    """
    num_before, begun = done, time.monotonic()

    def seconds_left(now: float, done: int) -> float:
        running = min(beside, total - done) / 2
        return (now - begun) * (total - done - running) / max(1, done - num_before + running)

    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn

        class _TimeLeft(ProgressColumn):
            """Nothing before there is something to reckon it by, and where that was too little."""

            def render(self, task: Task) -> Text:
                left = -1.0 if task.fields["end"] is None else task.fields["end"] - time.monotonic()
                told = left >= 0 or task.finished
                time_left = f"{timedelta(seconds=max(0, round(left)))} left"
                return Text(time_left if told else "", style="progress.remaining")

        description, note_beside = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
        columns = (description, BarColumn(), MofNCompleteColumn(), _TimeLeft(), note_beside)
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, completed=done, note="", end=None)

            def show(done: int, note: str) -> None:
                now = time.monotonic()
                end = now + seconds_left(now, done) if done > num_before else None
                bar.update(task, completed=done, note=note, end=end)

            yield show
        return
    last = begun

    def tell_plainly(done: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _PLAIN_EVERY_SECONDS:
            last = now
            ending = f", {seconds_left(now, done):.0f} s left" if num_before < done < total else ""
            sys.stderr.write(f"{label}: {done}/{total} {note}{ending}\n")
            sys.stderr.flush()

    yield tell_plainly
