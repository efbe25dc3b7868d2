"""`ets view`: a kept run, or one tree, as a page for the browser."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import get_args

import click

from search.cli.kinds import FILE
from search.cli.show import print_json
from search.errors import ConfigError
from search.types import Reduce, VoteRule


@click.command()
@click.argument("path", metavar="RUN_OR_TREE", type=FILE)
@click.argument("other", metavar="[OTHER]", required=False, type=FILE)
@click.option("--out", type=FILE, metavar="FILE.html", help="where to write; default: beside it")
@click.option("--vote", "rule", type=click.Choice(get_args(VoteRule)), help="vote again by another rule")
@click.option("--reduce", type=click.Choice(get_args(Reduce)), help="vote again with other weights of trajectories")
@click.option("--no-open", is_flag=True, help="do not open a browser")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object; opens no browser")
def view(
    path: Path,
    other: Path | None,
    out: Path | None,
    rule: VoteRule | None,
    reduce: Reduce | None,
    no_open: bool,
    as_json: bool,
) -> int:
    """Show the trees of RUN_OR_TREE: the folder of ets eval --out, or the file of ets solve --tree.

    With OTHER, the trees of both next to each other: where they part, what each cost, why each pruned what it pruned.

    Writes one page that needs no network, and prints where it is. Records that cannot be read are named and left out;
    the exit code is then 3.
    """
    from search.view import page
    from search.view.kept import read_kept
    from search.view.pairs import pair_page, pair_views

    kept = read_kept(path, rule, reduce)
    views, broken = list(kept.views), list(kept.broken)
    if other is None:
        html = page(kept.title, views)
    else:
        second = read_kept(other, rule, reduce)
        pairs = pair_views(kept, second)
        html = pair_page(_names(path, other), pairs)
        views, broken = [view for pair in pairs for view in pair], [*broken, *second.broken]
    file = _write(html, path, out, other)
    for line in broken:
        sys.stderr.write(f"ets: left out {line}\n")
    if as_json:
        figures = {
            "num_problems": len(views) // (1 if other is None else 2),
            "num_nodes": sum(view["num_nodes"] for view in views),
        }
        print_json({"page": str(file), **figures, "num_bytes": len(html.encode()), "left_out": broken})
    else:
        sys.stdout.write(f"{file}\n")
        sys.stdout.flush()
        if not no_open and _on_terminal() and _has_display():
            webbrowser.open(file.resolve().as_uri())
    return 3 if broken else 0


def _names(path: Path, other: Path) -> tuple[str, str]:
    """Two paths by their last parts, or whole where these are the same."""
    first, second = path.resolve(), other.resolve()
    return (first.name, second.name) if first.name != second.name else (str(path), str(other))


def _write(html: str, path: Path, out: Path | None, other: Path | None = None) -> Path:
    """Write the page where it was asked for, or beside what it shows, or if that cannot be to a temporary file."""
    from search.support.files import write_atomic

    if out is not None:
        if out.is_dir():
            raise ConfigError(f"cannot write {out}: it is a directory")
        if _is_shown(out, path) or (other is not None and _is_shown(out, other)):
            raise ConfigError(f"cannot write {out}: it is what is shown")
        write_atomic(out, html)
        return out
    beside = path / "view.html" if path.is_dir() else path.with_suffix(".html")
    if other is not None:
        beside = beside.with_name(f"{beside.stem}-beside-{other.resolve().stem}.html")
    try:
        if _is_shown(beside, path):
            raise ConfigError(f"{path} is what is shown")
        write_atomic(beside, html)
    except ConfigError:
        handle, name = tempfile.mkstemp(prefix="ets-view-", suffix=".html")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        return Path(name)
    return beside


def _is_shown(page: Path, path: Path) -> bool:
    """Whether a page would take the place of a record or of its run's settings, by whatever name."""
    whole, kept = page.resolve(), path.resolve()
    return whole in (kept, kept / "run.json") or (whole.parent == kept / "problems" and whole.suffix == ".json")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _has_display() -> bool:
    """Whether a browser could open a window here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
