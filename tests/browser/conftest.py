"""A real browser for the viewer's tests: Debian's Chromium, or the one that ETS_CHROMIUM names."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000
"""A page has this long to come to what is expected of it; all expectations are polled."""


def find_browser():
    """The browser's path; without one the tests fail, as they would say nothing."""
    named = os.environ.get("ETS_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None or not Path(found).exists():
        pytest.fail(
            f"no browser: {named or ', '.join(NAMES)} was not found. Install one (Debian: apt-get install chromium), "
            "name one with ETS_CHROMIUM=/path, or leave these tests out with ETS_SKIP_BROWSER=1",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="module")
def browser():
    """Closed with its module: while Playwright runs, no other test can have an event loop of its own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_MS)
    path = find_browser()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=2 * WAIT_MS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def artefacts():
    """Where screenshots are kept."""
    folder = Path(os.environ.get("ETS_TEST_ARTEFACTS") or ROOT / "build" / "browser")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """A page that is open, with what it said and what it asked for."""

    def __init__(self, page, address):
        self.page, self.console, self.requests = page, [], []
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page from a file, or an address; it must have said nothing on its console when the test ends."""
    visits, contexts = [], []

    def open_page(html="", address=None, **options):
        file = tmp_path / "view.html"
        if address is None:
            file.write_text(html)
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
        contexts.append(context)
        visits.append(Visit(context.new_page(), address or file.as_uri()))
        return visits[-1]

    yield open_page
    for context in contexts:
        context.close()
    for one in visits:
        assert one.console == []
