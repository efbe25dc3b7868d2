"""The viewer's page in a real browser: reading, keys, replay, filters, and large trees."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import expect
from trees import add, small_tree, uneven_tree, view_of, wide_tree
from view_page import listed_all, listed_now, node, selected

from search.decision.verdict import Verdict
from search.ledger import Stats
from search.loop.outcome import SearchOutcome
from search.tree import SearchTree
from search.types import Problem
from search.view import page, problem_view

HOSTILE = '</script><img src=x onerror="window.broken=1"><b>bold</b>'


def small_view(name="small", answer="7", **others):
    tree, selections, end = small_tree()
    verdict = Verdict(answer, answer == "7", end, {"7": 0.95, "8": 0.3})
    return view_of(tree, selections, name, "7", verdict, method="ets", width=8, **others)


TIMED = "() => {{ const start = performance.now(); {}; document.body.offsetHeight; return performance.now() - start; }}"


def test_every_fate_has_its_own_mark_and_words(visit, artefacts):
    opened = visit(page("small run", [small_view()]))
    shown = opened.page
    fates = {0: "chosen", 1: "chosen", 2: "pruned", 5: "kept", 6: "winner", 7: "failed", 8: "finished"}
    for number, fate in fates.items():
        assert node(shown, number).locator("svg").get_attribute("class") == f"glyph-{fate}"
    drawn = {shown.locator(f".node .glyph-{fate}").first.inner_html() for fate in fates.values()}
    assert len(drawn) == len(set(fates.values())), "told apart by shape, not by colour"
    expect(
        shown.get_by_role(
            "treeitem", name=re.compile("^Step 1, pruned, reward 0.20, by draft, cluster B, 3 siblings folded")
        )
    ).to_have_count(1)
    expect(node(shown, 1).locator(".writer")).to_have_text("T")
    assert shown.locator(".bracket").count() == 1, "the two siblings of cluster A"
    for words in ("end of the winning solution", "pruned", "failed", "cluster of ETS"):
        expect(shown.locator("#legend")).to_contain_text(words)
    widths = [
        float(path.evaluate("e => parseFloat(e.style.strokeWidth)"))
        for path in shown.locator("#edges path.pruned").all()
    ]
    assert widths and max(widths) < 1.5, "a low reward is a thin line"
    shown.screenshot(path=artefacts / "small.png")
    assert [url for url in opened.requests if not url.startswith("data:")] == [shown.url], (
        "nothing is asked of a network"
    )


def test_a_click_shows_the_whole_step(visit):
    shown = visit(page("small run", [small_view()])).page
    expect(selected(shown)).to_have_attribute("data-id", "6")
    node(shown, 2).click()
    detail = shown.locator("#detail")
    for words in (
        "Guess 8.",
        "ets: its 1 of 8 children do not pay",
        "0.200",
        "0.100 (estimate",
        "0.250 writing",
        "B, 3 of depth 1, 0 kept",
        "2, 3, 4",
    ):
        expect(detail).to_contain_text(words)
    node(shown, 6).click()
    expect(detail.get_by_role("list", name="Path from the prompt")).to_have_text(
        re.compile("First, add 3 and 4.*The answer is 7.")
    )
    expect(detail.locator("[aria-current=step]")).to_contain_text("The answer is 7.")


def test_the_header_has_answer_verdict_and_vote(visit):
    shown = visit(page("small run", [small_view(answer="8")])).page
    header = shown.locator("#header")
    expect(header).to_contain_text("✗ wrong")
    expect(header).to_contain_text("reference 7")
    expect(header.locator(".vote tr.won")).to_contain_text("8")
    silent = {**small_view(answer=None), "vote": []}
    expect(visit(page("silent", [silent])).page.locator(".vote")).to_contain_text("no solution has an answer")


def test_a_cluster_is_told_with_the_distance_of_its_cut(visit):
    shown = visit(page("small run", [small_view()])).page
    node(shown, 2).click()
    expect(shown.locator("#detail")).to_contain_text("B, 3 of depth 1, 0 kept; steps nearer than 0.25 are alike")


def test_arrows_walk_the_tree(visit):
    shown = visit(page("small run", [small_view()])).page
    node(shown, 6).focus()
    for key, number in (
        ("ArrowLeft", 1),
        ("ArrowDown", 5),
        ("ArrowRight", 8),
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowUp", 1),
        ("End", 6),
    ):
        shown.keyboard.press(key)
        expect(selected(shown)).to_have_attribute("data-id", str(number))
        expect(node(shown, number)).to_be_focused()
    assert node(shown, 6).evaluate("e => getComputedStyle(e).outlineStyle") == "solid", "focus is visible"
    assert shown.locator('.node[tabindex="0"]').count() == 1


def test_the_slider_replays_the_search(visit, artefacts):
    shown = visit(page("small run", [small_view()])).page
    slider, told = shown.get_by_role("slider", name="Replay"), shown.locator("#replayed")
    expect(told).to_contain_text("Whole search, depth 2")
    shown.keyboard.press("[")
    view = small_view()["selections"][0]
    expect(told).to_have_text(
        re.compile(
            f"After depth 1: 2 of 5 kept, {view['kv_tokens']} KV tokens of {view['kv_tokens_candidates']} before"
        )
    )
    expect(slider).to_have_attribute("aria-valuetext", told.text_content())
    assert "later" in node(shown, 6).get_attribute("class") and "later" not in node(shown, 1).get_attribute("class")
    assert "released" in node(shown, 2).get_attribute("class") and "released" not in node(shown, 5).get_attribute(
        "class"
    )
    kept, before = (shown.locator(f"#kv .{name}").bounding_box()["width"] for name in ("kept", "before"))
    assert kept / before == pytest.approx(view["kv_tokens"] / view["kv_tokens_candidates"], abs=0.02)
    shown.screenshot(path=artefacts / "replay.png")
    shown.keyboard.press("PageUp")
    expect(told).to_have_text("The prompt alone")
    shown.keyboard.press("PageDown")
    shown.keyboard.press("]")
    expect(told).to_contain_text("Whole search")
    shown.get_by_role("button", name=re.compile("Replay to depth 1")).click()
    expect(slider).to_have_value("1")
    shown.get_by_role("button", name="Play", exact=True).click()
    expect(slider).to_have_value("2")
    expect(shown.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_where_a_depth_is_selected_more_than_once_the_slider_goes_from_selection_to_selection(visit):
    tree, selections, end = uneven_tree()
    shown = visit(page("mcts", [view_of(tree, selections, verdict=Verdict("7", None, end))])).page
    slider, told = shown.get_by_role("slider", name="Replay"), shown.locator("#replayed")
    marks = {1: [3, 4], 2: [4], 3: []}
    for number, later in marks.items():
        slider.fill(str(number))
        expect(told).to_contain_text(f"After selection {number} of 3: ")
        seen = [one for one in range(5) if "later" in node(shown, one).get_attribute("class").split()]
        assert seen == later
    expect(told).to_contain_text("0 of 1 kept")
    assert "released" in node(shown, 4).get_attribute("class").split()
    shown.get_by_role("button", name="Replay to depth 2: 2 steps").click()
    expect(slider).to_have_value("2")
    assert shown.locator(".head .kv").count() == 0, "no bar says what no selection kept"
    slider.fill("4")
    expect(told).to_contain_text("Whole search, depth 2")


def test_steps_are_found_by_their_text(visit):
    shown = visit(page("small run", [small_view()])).page
    shown.keyboard.press("s")
    shown.keyboard.type("ANSWER")
    expect(shown.locator("#found")).to_have_text("2 of 8 steps")
    assert shown.locator(".node.matched").count() == 2 and shown.locator(".node.unmatched").count() == 5
    shown.keyboard.press("Enter")
    expect(selected(shown)).to_have_attribute("data-id", "8")
    shown.keyboard.press("Enter")
    expect(selected(shown)).to_have_attribute("data-id", "6")
    shown.keyboard.press("Escape")
    expect(shown.locator(".node.unmatched")).to_have_count(0)
    expect(node(shown, 6)).to_be_focused()


def test_folding_and_zoom(visit):
    shown = visit(page("small run", [small_view()])).page
    assert shown.locator(".node").count() == 7
    shown.locator("#fold").select_option("none")
    expect(shown.locator(".node")).to_have_count(9)
    expect(node(shown, 1).locator(".said")).to_have_text("First, add 3 and 4.")
    for _ in range(5):
        shown.get_by_role("button", name="Zoom out").click()
    expect(shown.locator(".said")).to_have_count(0)
    shown.keyboard.press("0")
    expect(node(shown, 1).locator(".said")).to_be_visible()


def run_page():
    views = [small_view(f"p-{number}") for number in range(4)]
    views[1] = small_view("p-1", answer="8")
    views[2] = problem_view(Problem("p-2", "Who knows?", "1"), None, error="the server died")
    views[3] = small_view("p-3 apples")
    return page("a run", views)


def test_the_problems_of_a_run_are_listed_and_filtered(visit, artefacts):
    shown = visit(run_page()).page
    listed = listed_all(shown)
    expect(listed).to_have_count(4)
    expect(shown.locator("#list-summary")).to_have_text("4 of 4 problems, 2 of 3 right")
    for verdict, number in (("wrong 1", 1), ("failed 1", 1), ("right 2", 2), ("all 4", 4)):
        shown.get_by_role("button", name=verdict).click()
        expect(listed).to_have_count(number)
    shown.keyboard.press("n")
    expect(listed_now(shown)).to_contain_text("p-1")
    expect(shown.locator("#header")).to_contain_text("✗ wrong")
    shown.keyboard.press("n")
    expect(shown.locator("#empty")).to_have_text("There is no tree: the server died.")
    shown.screenshot(path=artefacts / "failed.png")
    shown.keyboard.press("p")
    shown.keyboard.press("/")
    shown.keyboard.type("apples")
    expect(listed).to_have_count(1)
    shown.keyboard.press("Enter")
    expect(shown.locator("#header")).to_contain_text("Problem p-3 apples")
    shown.keyboard.press("Escape")
    expect(listed).to_have_count(4)
    listed.nth(0).click()
    listed.nth(0).focus()
    shown.keyboard.press("ArrowDown")
    expect(listed_now(shown)).to_contain_text("p-1")
    expect(listed_now(shown)).to_be_focused()
    shown.screenshot(path=artefacts / "run.png")


def test_no_text_is_more_than_text(visit):
    tree = SearchTree("t", (1,), HOSTILE)
    tree.finish(add(tree, 0, HOSTILE, 0.5, HOSTILE), HOSTILE)
    problem, verdict = Problem(HOSTILE, HOSTILE, HOSTILE), Verdict(HOSTILE, None, 1, {HOSTILE: 1.0})
    view = problem_view(problem, SearchOutcome(problem, tree, Stats()), verdict, error=HOSTILE)
    shown = visit(page(HOSTILE, [view, view])).page
    expect(shown.locator("#detail .step")).to_have_text(HOSTILE)
    expect(shown.locator("#header .asked")).to_have_text(HOSTILE)
    expect(shown.locator("#title")).to_have_text(HOSTILE)
    assert shown.locator("img, b:text-is('bold')").count() == 0 and shown.evaluate("window.broken") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_dark_grey_and_print(visit, artefacts, scheme):
    tree, selections = wide_tree(150, 16)
    view = view_of(tree, selections)
    shown = visit(page("run", [view]), color_scheme=scheme).page
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 100)")
    assert dark == (scheme == "dark")
    shown.screenshot(path=artefacts / f"{scheme}.png")
    if scheme == "light":
        printed = shown.pdf(landscape=True)
        (artefacts / "print.pdf").write_bytes(printed)
        assert printed.startswith(b"%PDF")


def test_a_thousand_nodes_are_drawn_in_no_time(visit, artefacts):
    tree, selections = wide_tree(1001)
    opened = visit(page("wide", [view_of(tree, selections)]))
    shown = opened.page
    for fold in ("pruned", "none"):
        shown.locator("#fold").select_option(fold)
        took = shown.evaluate(TIMED.format("draw()"))
        assert took < 2000, f"{took} ms"
        shown.screenshot(path=artefacts / f"thousand-{fold}.png")
    expect(shown.locator(".node")).to_have_count(1001)
    tops = shown.evaluate(
        "[...document.querySelectorAll('.node')].map(e => [e.offsetLeft, e.offsetTop, e.offsetHeight])"
    )
    by_column = {}
    for left, top, height in tops:
        by_column.setdefault(left, []).append((top, height))
    for column in by_column.values():
        column.sort()
        assert all(top + height <= below + 1 for (top, height), (below, _) in pairwise(column)), "no overlap"
    took = shown.evaluate(TIMED.format("for (let i = 0; i < 5; i++) setMoment(i)"))
    assert took < 2000, f"five steps of the slider: {took} ms"
