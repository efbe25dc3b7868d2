"""Two searches side by side in a real browser, and a comparison's page: reading, keys, filters, large trees."""

import subprocess
import sys

from playwright.sync_api import expect
from trees import add, small_tree, view_of, wide_tree

from search.decision.verdict import Verdict
from search.tree import SearchTree
from search.types import Selected
from search.view import page
from search.view.pairs import pair_page


def other_view(name, **others):
    tree = SearchTree("other", range(10), "How many?\n\n")
    best = add(tree, 0, "First, add 3 and 4.\n\n", 0.9)
    guess = add(tree, 0, "Guess 8.\n\n", 0.2)
    summed = add(tree, 0, "Add 3.\n\n", 0.6)
    tree.prune(summed, "beam: rank 3 of 3")
    end = add(tree, guess, "It is 8.", 0.4)
    tree.finish(end, "end of text")
    tree.finish(add(tree, best, "The answer is 7.", 0.1), "end of text")
    verdict = Verdict("8", False, end, {"8": 0.4, "7": 0.1})
    return view_of(tree, [Selected((best, guess, summed), (best, guess))], name, "7", verdict, method="beam", width=8)


def small_view(name):
    tree, selections, end = small_tree()
    return view_of(tree, selections, name, "7", Verdict("7", True, end, {"7": 0.95}), method="ets", width=8)


def selected(frame):
    return frame.locator('.node[aria-selected="true"]')


def test_both_trees_their_costs_and_where_they_part(visit, artefacts):
    pairs = [(small_view("one"), other_view("one")), (small_view("two"), small_view("two"))]
    shown = visit(pair_page(("ets run", "beam run"), pairs)).page
    left, right = shown.frame_locator("#left"), shown.frame_locator("#right")
    expect(left.locator(".node").first).to_be_visible()
    expect(right.locator(".node").first).to_be_visible()
    expect(shown.locator("#left-name")).to_have_text("ets run · ets-8 · answer 7 ✓")
    expect(shown.locator("#right-name")).to_have_text("beam run · beam-8 · answer 8 ✗")
    expect(shown.locator("#summary")).to_contain_text("They part at step 1.")
    expect(shown.locator("#reasons")).to_contain_text("beam: rank N of N")
    expect(shown.locator("#costs .cost")).to_have_count(8)
    shown.get_by_role("button", name="Add 3.").click()
    expect(selected(left)).to_have_attribute("data-id", "5")
    expect(selected(right)).to_have_attribute("data-id", "3")
    shown.screenshot(path=artefacts / "pair.png")
    shown.locator("h1").click()
    shown.keyboard.press("k")  # the first place where they part
    expect(selected(left)).to_have_attribute("data-id", "2")
    shown.keyboard.press("[")
    expect(left.locator("#replay")).to_have_value("1")
    expect(right.locator("#replay")).to_have_value("1")
    shown.keyboard.press("n")
    expect(shown.locator("#summary")).to_contain_text("They do not part.")
    expect(right.locator("#header")).to_contain_text("7")
    expect(shown.locator("#problem")).to_have_value("1")


def test_all_of_it_by_the_keyboard(visit):
    """From the address bar on, no click: the problems, the replay, where they part, and a step of either tree."""
    pairs = [(small_view("one"), other_view("one")), (small_view("two"), other_view("two"))]
    shown = visit(pair_page(("ets run", "beam run"), pairs)).page
    left, right = shown.frame_locator("#left"), shown.frame_locator("#right")
    for frame in (left, right):
        expect(frame.locator(".node").first).to_be_visible()
    reached = []
    for _ in range(4):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.id"))
    assert reached == ["problem", "previous", "next", "depth"]
    for key, value in (("ArrowLeft", "1"), ("ArrowRight", "2"), ("[", "1")):
        shown.keyboard.press(key)
        for frame in (left, right):
            expect(frame.locator("#replay")).to_have_value(value)
    first = shown.locator("#partings button").first
    for _ in range(3):  # what can be scrolled is reached too
        shown.keyboard.press("Tab")
        if first.evaluate("one => one === document.activeElement"):
            break
    shown.keyboard.press("Enter")
    expect(selected(left)).to_have_attribute("data-id", "2")
    shown.keyboard.press("j")
    expect(selected(left)).to_have_attribute("data-id", "5")
    expect(selected(right)).to_have_attribute("data-id", "3")
    # In a tree its own keys walk it, and those of both still move both.
    left.locator('.node[tabindex="0"]').focus()
    shown.keyboard.press("ArrowLeft")
    expect(selected(left)).to_have_attribute("data-id", "0")
    expect(selected(right)).to_have_attribute("data-id", "3")
    shown.keyboard.press("]")
    for frame in (left, right):
        expect(frame.locator("#replay")).to_have_value("2")
    shown.keyboard.press("s")
    shown.keyboard.type("np[")
    expect(left.locator("#step-filter")).to_have_value("np[")
    shown.keyboard.press("Escape")
    shown.keyboard.press("n")
    expect(shown.locator("#problem")).to_have_value("1")
    shown.keyboard.press("p")
    expect(shown.locator("#problem")).to_have_value("0")


def test_two_trees_of_a_thousand_nodes_are_drawn_in_two_seconds_of_the_browsers_work(visit):
    """CPU seconds of the page's thread, which a busy machine does not lengthen."""
    views = []
    for seed in (1, 2):
        tree, selections = wide_tree(1000, seed=seed)
        views.append(view_of(tree, selections))
    shown = visit(pair_page(("a", "b"), [tuple(views), tuple(views)])).page
    frames = [shown.frame_locator(side) for side in ("#left", "#right")]
    for frame in frames:
        expect(frame.locator(".node").first).to_be_visible()
    asked = shown.context.new_cdp_session(shown)
    asked.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked():
        return {one["name"]: one["value"] for one in asked.send("Performance.getMetrics")["metrics"]}["TaskDuration"]

    before = worked()
    shown.locator("#next").click()
    for frame in frames:
        frame.locator("#fold").select_option("none")
        expect(frame.locator(".node")).to_have_count(1000)
    assert 0 < worked() - before < 2


def test_a_page_of_trees_opens_at_the_problem_that_its_address_names(visit, tmp_path):
    file = tmp_path / "trees.html"
    file.write_text(page("run", [small_view("one"), small_view("test/2")]))
    shown = visit(address=f"{file.as_uri()}#test%2F2").page
    option = shown.get_by_role("listbox", name="Problems").get_by_role("option", selected=True)
    expect(option).to_contain_text("test/2")
    shown.evaluate("location.hash = 'one'")
    expect(option).to_contain_text("one")


def ets(*words):
    """The command in a process of its own: while Playwright runs, none here can have an event loop."""
    subprocess.run([sys.executable, "-m", "search.cli", *map(str, words)], check=True, capture_output=True)


def test_a_comparison_hides_what_is_not_asked_for_and_leads_to_the_trees(visit, tmp_path, artefacts):
    models = ("--policy", "mini:draft", "--prm", "mini:prm")
    ets("eval", "--limit", 12, *models, "--method", "greedy", "--out", tmp_path / "greedy")
    ets("eval", "--limit", 12, *models, "--method", "rebase", "--width", 4, "--out", tmp_path / "rebase")
    ets("compare", tmp_path / "greedy", tmp_path / "rebase", "--html", tmp_path / "page")
    shown = visit(address=(tmp_path / "page" / "index.html").as_uri()).page
    rows = shown.locator("tbody tr:visible:has(a)")
    expect(rows).to_have_count(12)
    alone = shown.locator("tbody tr.only").count()
    box = shown.get_by_label("only those that one run alone solved")
    for _ in range(10):
        shown.keyboard.press("Tab")
        if box.evaluate("one => one === document.activeElement"):
            break
    for count in (alone, 12):
        shown.keyboard.press("Space")
        expect(rows).to_have_count(count)
    shown.screenshot(path=artefacts / "compare.png")
    link = shown.locator("tbody tr a").nth(3)
    problem = link.get_attribute("href").partition("#")[2]
    link.focus()
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("listbox", name="Problems").get_by_role("option", selected=True)).to_contain_text(problem)
