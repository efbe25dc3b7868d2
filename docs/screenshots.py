"""Makes the pictures of the tree viewer and of comparisons from real searches with the built-in models, in Chromium.

Usage: python docs/screenshots.py [FOLDER]     (default: docs; needs the extras `browser` and `plots`, and Chromium)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from search import Problem, Search
from search.mini.problems import problem
from search.view import page
from search.view.kept import read_kept

SIZE = {"width": 1440, "height": 900}
PICTURES: dict[str, dict[str, Any]] = {
    "view-ets.png": {"index": 0},
    "view-arbitrage.png": {"index": 3, "writer": "arbitrage"},
}
COMPARED = 30
"""Problems of the comparison."""


def solve(folder: Path, name: str, index: int, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """Search one test problem of the mini family at width 16 and keep its tree; the record's file, and how it ran."""
    made = problem("test", index)
    with Search(method="ets", width=16, **settings) as search:
        result = search.solve(Problem(made.id, made.text, made.answer))
        file = folder / f"{name}.json"
        file.write_text(result.to_record(search.config_hash).model_dump_json())
    by = {"method": "ets", "width": 16, "vote_rule": f"{search.settings.vote}, {search.settings.reduce}"}
    return file, by


def shoot(browser: Browser, record: Path, by: dict[str, Any], title: str, target: Path) -> None:
    """One picture, the winning solution's end selected."""
    (view,) = read_kept(record).views
    html = record.with_suffix(".html")
    html.write_text(page(title, [{**view, **by}]))
    shown = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
    shown.goto(html.as_uri())
    shown.keyboard.press("End")
    shown.screenshot(path=target)
    shown.close()


def comparison(folder: Path) -> dict[str, Path]:
    """REBASE and ETS on the same problems, through the command line; the pages by the picture's name."""
    runs = [folder / "rebase", folder / "ets"]
    asked = ("--limit", COMPARED, "--policy", "mini:draft", "--prm", "mini:prm", "--width", 8, "--until", "spent")
    for run in runs:
        _ets(folder, "eval", *asked, "--method", run.name, "--out", run.name)
    _ets(folder, "view", *(run.name for run in runs), "--no-open", "--out", "pair.html")
    _ets(folder, "compare", *(run.name for run in runs), "--html", "page")
    return {"view-pair.png": folder / "pair.html", "compare.png": folder / "page" / "index.html"}


def _ets(folder: Path, *words: object) -> None:
    command = [sys.executable, "-m", "search.cli", *map(str, words)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def shoot_page(browser: Browser, html: Path, target: Path) -> None:
    """One picture of a page; two trees are shown where they part first."""
    shown = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
    shown.goto(html.as_uri())
    if target.name == "view-pair.png":
        shown.frame_locator("#left").locator(".node").first.wait_for()
        shown.frame_locator("#right").locator(".node").first.wait_for()
        shown.keyboard.press("k")
    shown.screenshot(path=target)
    shown.close()


def lighten(picture: Path) -> None:
    """Keep 64 colours, a third of the bytes."""
    with Image.open(picture) as shot:
        shot.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)


def main(target: Path) -> None:
    """All pictures."""
    chromium = os.environ.get("ETS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium was not found; install it, or name it with ETS_CHROMIUM=/path")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        pages = comparison(Path(name))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture, settings in PICTURES.items():
            record, by = solve(Path(name), picture.removesuffix(".png"), **settings)
            title = "ETS, routed by Arbitrage" if "writer" in settings else "ETS"
            shoot(browser, record, by, title, target / picture)
            sys.stderr.write(f"wrote {target / picture}\n")
        for picture, html in pages.items():
            shoot_page(browser, html, target / picture)
            lighten(target / picture)
            sys.stderr.write(f"wrote {target / picture}\n")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parent)
