"""The tree in a terminal: 80 columns, no colour, and nothing of a model's text steers the terminal."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from search.answers.graders import PlainGrader
from search.cli.show import print_result
from search.cli.tree_text import draw_tree, legend
from search.ledger import Stats
from search.loop.driver import SearchOutcome
from search.results.result import conclude
from search.tree import SearchTree
from search.types import FinishReason, NodeId, Problem, Selected, Step

HOSTILE = "\x1b[31mred\x07 [bold]markup[/bold] \x9b2J 漢字" * 4


FIRST = Selected((NodeId(1), NodeId(2), NodeId(3)), (NodeId(1),))
"""The first selection of `tree`: one of three was kept."""


def add(tree, parent, text, reward=None, writer="policy", end=""):
    node = tree.add_child(NodeId(parent))
    tree.write(Step(node, (1, 2, 3), text, FinishReason.STOP, writer))
    if reward is not None:
        tree.set_reward(node, reward)
    if end:
        tree.finish(node, end)
    return node


@pytest.fixture
def tree():
    """Two solutions below one step, which alone leads anywhere."""
    tree = SearchTree("t", (1, 2), "How many?")
    good = add(tree, 0, "Add 3 and 4.\n\n", 0.9)
    for reward in (0.95, 0.2):
        tree.prune(add(tree, 0, "Guess.\n\n", reward), "not kept")
    tree.fail(tree.add_child(good), "the engine went away")
    other = add(tree, good, "That is 8.\n\n", 0.4)
    right = add(tree, good, "That is 7.\n\n", 1.0)
    add(tree, other, "The answer is 8.", 0.3, end="end of text")
    for _ in range(2):
        add(tree, right, "The answer is 7.", 0.9996, end="end of text")
    return tree


def result_of(tree, selections=(), method="ets", width=4):
    outcome = SearchOutcome(Problem("p", "How many?", "7"), tree, Stats(), selections=selections)
    return conclude(outcome, rule="weighted", reduce="last", grader=PlainGrader(), method=method, width=width, seed=0)


def printed(result, width=80, encoding="utf-8", **options):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=width, highlight=False, **options)
    print_result(result, console)
    console.file.flush()
    return raw.getvalue().decode(encoding)


def test_what_led_to_a_solution_is_drawn_and_the_rest_is_a_number(tree):
    assert [line.text for line in draw_tree(tree, NodeId(8))] == [
        "> prompt [2 out, .950]",
        "> o .900 Add 3 and 4. [1 out, 1 !]",
        "  ├ o .400 That is 8.",
        "  │ * .300 The answer is 8.",
        "> └ o 1.00 That is 7.",
        ">   * .999 The answer is 7. x2",
    ]
    assert [line.chosen for line in draw_tree(tree, NodeId(8))] == [True, True, False, False, True, True]


def test_a_terminal_without_line_letters(tree):
    lines = [line.text for line in draw_tree(tree, None, ascii_only=True)]
    assert "\n".join(lines).isascii() and "  |-o .400 That is 8." in lines and "  `-o 1.00 That is 7." in lines


def test_draft_and_target_are_told_apart():
    tree = SearchTree("t", (1,), "q")
    add(tree, add(tree, 0, "One.\n\n", 0.5, "draft"), "Two.", 0.5, "target", end="end of text")
    assert [line.text for line in draw_tree(tree, None)][1:] == ["  o .500 d One.", "  * .500 T Two."]


def test_without_a_solution_the_deepest_steps_are_drawn():
    tree = SearchTree("t", (1,), "q")
    tree.prune(add(tree, 0, "Short.", 0.5), "not kept")
    tree.fail(add(tree, add(tree, 0, "Long.\n\n"), "Longer."), "no reward: the server died")
    assert [line.text for line in draw_tree(tree, None)] == [
        "  prompt [1 out, .500]",
        "  o   -  Long.",
        "  !   -  no reward: the server died",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("branching", [1, 2])
def test_no_line_is_wider_than_the_terminal(width, branching):
    tree, node = SearchTree("t", (1,), "q"), NodeId(0)
    for depth in range(60):
        children = [add(tree, node, f"{place} 漢字 step {depth} " * 9, 0.5) for place in range(branching)]
        for child in children[1:]:
            tree.finish(child, "end of text")
        node = children[0]
    tree.finish(node, "end of text")
    lines = draw_tree(tree, node, width)
    assert len(lines) == 1 + 60 * branching and all(".500" in line.text for line in lines[1:])
    assert max(cell_len(line.text) for line in lines) <= width


@pytest.mark.parametrize("branching", [1, 2])
def test_a_tree_deeper_than_the_stack_is_drawn(branching):
    tree, node = SearchTree("t", (1,), "q"), NodeId(0)
    for _ in range(1500):
        for place in range(1, branching):
            add(tree, node, f"End {place}.", 0.5, end="end of text")
        node = add(tree, node, "Go on.", 0.5)
    tree.finish(node, "end of text")
    assert len(draw_tree(tree, node)) == 1 + 1500 * branching


def test_a_result_in_80_columns_without_colour(tree):
    for options in ({}, {"no_color": True}, {"force_terminal": True, "color_system": None}):
        shown = printed(result_of(tree, [FIRST]), **options)
        if not options.get("force_terminal"):
            assert "\x1b" not in shown
        assert "\x1b[3" not in shown, "no colours"
        assert all(cell_len(line) <= 80 for line in shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())
        for words in ("Best solution", "Answer: 7  right", "trajectories", "> └ o 1.00 That is 7.", "KV by REBASE"):
            assert words in shown
    assert all(len(line) <= 80 for routed in (True, False) for line in legend(routed).splitlines())


def test_an_old_terminal_gets_ascii_alone(tree):
    assert printed(result_of(tree), encoding="ascii").isascii()


def test_text_cannot_steer_the_terminal():
    tree = SearchTree("t", (1,), HOSTILE)
    add(tree, add(tree, 0, HOSTILE, 0.5), f"{HOSTILE} The answer is {HOSTILE}", 0.5, end="end of text")
    result = result_of(tree)
    shown = printed(result)
    assert not {"\x1b", "\x07", "\x9b"} & set(shown) and "[bold]markup" in shown and "漢字" in shown


def test_rebase_is_compared_by_its_rule_on_the_same_steps(tree):
    shown = printed(result_of(tree, [FIRST]))
    # Of 0.9, 0.95 and 0.2 REBASE keeps the first two at width 4, so 2 + 3 + 3 tokens; this search kept one.
    (row,) = [" ".join(line.split()) for line in shown.splitlines() if "REBASE" in line]
    assert row == "KV by REBASE 8 tokens, its rule on the same steps: 38% less is kept"
    for result in (
        result_of(tree),
        result_of(tree, [FIRST], "rebase"),
        result_of(tree, [FIRST], width=1),
    ):
        assert "REBASE" not in printed(result)


def test_branches_that_were_lost_are_said(tree):
    result = result_of(tree)
    assert "branches; the first: the engine went away" in printed(result)
    assert "1; the first: the engine went away" in result._repr_html_()
