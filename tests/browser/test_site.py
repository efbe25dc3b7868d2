"""The documentation's site as a reader has it: opened from disk, in a window of 1300 pixels, and searched."""

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(file.stem for file in ROOT.glob("docs/*.md"))
WINDOW = {"width": 1300, "height": 900}
TOO_WIDE = """() => [...document.querySelectorAll('.md-content table')]
    .filter((one) => one.scrollWidth > one.closest('article').clientWidth + 1)
    .map((one) => one.querySelector('th').textContent + ': ' + one.scrollWidth)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_tables_fit_the_window(site, visit, name):
    shown = visit(address=(site / f"{name}.html").as_uri(), viewport=WINDOW)
    assert shown.page.evaluate(TOO_WIDE) == []
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in shown.requests)


def test_the_site_is_searched_without_a_server(site, visit):
    page = visit(address=(site / "index.html").as_uri(), viewport=WINDOW).page
    page.locator(".md-search__input").click()
    page.keyboard.type("perplexity")
    found = page.locator(".md-search-result__item a").first
    expect(found).to_be_visible()
    found.click()
    expect(page.locator("article h1")).not_to_have_text("Quick start")
    assert page.url.startswith("file:")
