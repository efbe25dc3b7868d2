"""Where steps end in texts as language models write them."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.steps import StepReader, is_head, line_end_tokens, split_steps

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "qwen-coder-1.5b-gsm8k-train-solutions.jsonl.gz"

HEADS = """\
Step 1
Step 1:
step two.
STEP 3 -
**Step 2**
**Step 2:**
**Step 2: Apply the 20% discount.**
__Step 4: Add them up__
### Step 1: Compute the total
## Step 3: Solve for $x$
# Solution
#### 1. Understand the problem
### Final Answer
**Final Answer**
**Solution**
***Solution***
1. **Calculate the cost of 3 apples**
- **Determine Mel's age**
2. **Simplify the equation.**
Step 4: Calculate the total number of pages
Step 2: Determine how many of these cards are uncommon.
Let's break down the problem step by step.
Sure! Let's work through this problem step by step.
Okay, let us start.
Let's write the Python code to perform these calculations.
We will solve this in two steps.
Here is the solution.
---
***
-
> **Step 1**
Let\u2019s solve this step by step.""".splitlines()

NO_HEADS = """\
**Answer:** 18
**18**
**18 apples**
**$18**
**Answer: 18**
**The answer is 18.**
__Total = 5__
### Final answer: 7
### 18
## The answer is $\\boxed{5}$
# \\boxed{7}
**x = 5**
**Therefore, the total is 12 dollars.**
Step 3: The answer is \\boxed{5}.
### Step 4: The answer is 7
**Final Answer: Monday**
Step 2: 5 + 6 = 11
Step 1: Kris is currently 24 years old.
Step 2: Since all sides are equal, the triangle is equilateral.
Let's denote the number of eggs by x.
Let x be the number of eggs.
Let's say Tom has 5 apples.
We will need 12 eggs to follow the recipe in steps.
Tom has three apples.
The answer is 7.
18
\\[ 5 + 6 = 11 \\]
1. Tom buys 3 apples.
- He has 5 left.
Let's solve it. Tom has three apples, and that is all.
**Note** that Tom sold three of them.""".splitlines()


@pytest.mark.parametrize("line", HEADS)
def test_a_head_says_nothing_by_itself(line):
    assert is_head(line)
    assert split_steps(f"{line}\n\nTom buys 3 apples.\n\nDone.") == [f"{line}\n\nTom buys 3 apples.\n\n", "Done."]
    assert split_steps(f"{line}\n\n{line}\n\nTom.\n\nDone.") == [f"{line}\n\n{line}\n\nTom.\n\n", "Done."]


@pytest.mark.parametrize("line", NO_HEADS)
def test_what_says_something_is_a_step(line):
    assert not is_head(line)
    assert split_steps(f"{line}\n\nDone.") == [f"{line}\n\n", "Done."]


def test_a_paragraph_that_ends_with_a_colon_announces_what_follows():
    for line in (
        "To solve this problem, we need to follow these steps:",
        "Let's go through each step in detail:",
        "**Step 1: Find the total:**",
        "Tom has 5 apples, of which he eats two. This leaves:",
        "The answer is:",
        "**Answer:**",
        "解\uff1a",
        "1. We add them:",
        "Tom has 5 apples.\nSo there are:",
    ):
        assert split_steps(f"{line}\n\n\\[ 5 - 2 = 3 \\]\n\nDone.") == [f"{line}\n\n\\[ 5 - 2 = 3 \\]\n\n", "Done."]
    assert split_steps("It is:\nfive.\n\nDone.") == ["It is:\nfive.\n\n", "Done."], "only at its end"


FENCES = (
    "```python\na = 1\n\nb = 2\n```",
    "```\n\n```",
    "~~~\n```\n\n~~~",
    "````\n```\n\n````",
    "   ```py\n   a\n\n   ```",
    "> ```\n> a\n>\n> ```",
    "- ```\n  a\n\n  ```",
    '1. ``` python3 title="x"\n\n   b\n   ```   ',
    "```latex\n\\[ x\n\n```",
    '```python\n# Step 1:\n\nprint("$$")\n\n\n```',
)


@pytest.mark.parametrize("block", FENCES)
def test_no_step_ends_inside_a_code_fence(block):
    assert split_steps(f"Now:\n{block}\n\nDone.") == [f"Now:\n{block}\n\n", "Done."]
    assert split_steps(f"{block}\nSo it is 3.\n\nDone.") == [f"{block}\nSo it is 3.\n\n", "Done."]


def test_a_fence_ends_at_its_like_alone():
    assert split_steps("```a`b\n\nc") == ["```a`b\n\n", "c"], "with a backtick behind it, it is none"
    assert split_steps("``` `x` ```\n\nc") == ["``` `x` ```\n\n", "c"]
    assert split_steps("````\n```\n\nc\n\n````\n\nd") == ["````\n```\n\nc\n\n````\n\n", "d"]
    assert split_steps("```\n``` x\n\nc\n```\n\nd") == ["```\n``` x\n\nc\n```\n\n", "d"], "nothing stands behind an end"
    assert split_steps("a\n``` never closed\n\nb\n\nc") == ["a\n``` never closed\n\nb\n\nc"]


FORMULAS = (
    "\\[\n\n5\n\n\\]",
    "So \\[ 5 \\]\n\\[\n6\n\n\\]",
    "$$\n\n5\n\n$$",
    "So $$\n5\n\n$$",
    "$$5 +\n\n6$$",
    "\\begin{align*}\na &= 1 \\\\\n\nb &= 2\n\\end{align*}",
    "\\begin{equation}\n\n5\n\\end{equation}",
    "\\[\n\\begin{aligned}\n\na\n\\end{aligned}\n\n\\]",
    "\\begin{gather}\n\\\\[4pt]\n\n\\]\n\n\\end{gather}",
)


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_step_ends_inside_a_display_formula(formula):
    assert split_steps(f"{formula}\n\nDone.") == [f"{formula}\n\n", "Done."]


@pytest.mark.parametrize(
    "line",
    [
        "It costs $5, or $$5 with tax.",
        "The string is `$$` or `\\[`.",
        "x \\\\[4pt]",
        "$$5$$ and \\[6\\]",
        "\\begin{enumerate}",
        "It is \\$$ 5.",
        "\\end{align}",
        "\\]",
    ],
)
def test_what_opens_no_formula(line):
    assert split_steps(f"{line}\n\nDone.") == [f"{line}\n\n", "Done."]


def test_blank_lines_of_any_kind():
    for blank in ("\n\n", "\n \n", "\n\t \n", "\r\n\r\n", "\n\u00a0\n", "\n\u3000\n", "\n   \r\n"):
        assert split_steps(f"a{blank}b{blank}c") == [f"a{blank}", f"b{blank}", "c"]
    assert split_steps("a\n\n\n\nb") == ["a\n\n", "\n\nb"], "cut where a model could have gone on"
    assert split_steps("\n\n\na\n\nb\n\n\n") == ["\n\n\na\n\n", "b\n\n\n"]
    assert split_steps("") == [] and split_steps("\n\n") == ["\n\n"] and split_steps("a\nb") == ["a\nb"]


def test_thoughts_are_paragraphs_and_what_they_leave_open_ends_with_them():
    assert split_steps("<think>\n\nFirst.\n\nThen.\n</think>\n\nIt is 7.\n\nYes.") == [
        "<think>\n\nFirst.\n\n", "Then.\n</think>\n\n", "It is 7.\n\n", "Yes.",
    ]  # fmt: skip
    assert split_steps("<think>Hm.\n```\na\n\nb\n</think>\n\nIt is 7.\n\nYes.")[1:] == ["It is 7.\n\n", "Yes."]
    assert split_steps("<think>\nHm.\n\n</think>\n\nIt is 7.\n\nYes.") == [
        "<think>\nHm.\n\n", "</think>\n\nIt is 7.\n\n", "Yes.",
    ]  # fmt: skip
    assert split_steps("[THINK]a\n\nb[/THINK]c\n\nd") == ["[THINK]a\n\n", "b[/THINK]c\n\n", "d"]


PIECES = st.sampled_from(
    ["\n", "\n\n", " ", "a", "Step 1:", "**", "# ", "```", "~~~", "\\[", "\\]", "$$", "<think>", "</think>", "é", "😀",
     "\\begin{align}", "\\end{align}", "\r", "\t", ":", "Let's go step by step.", "1. ", "\u2028", "\x0c", "\x1c", "=7"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
def test_steps_put_together_are_the_text(text):
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1


@given(st.lists(PIECES, max_size=30).map("".join), st.integers(1, 7))
def test_it_does_not_matter_in_which_pieces_a_text_is_read(text, size):
    data = text.encode()
    whole, parts = StepReader(), StepReader()
    ended = [whole.feed(data[at : at + 1]) for at in range(len(data))]
    in_parts = [parts.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert whole == parts
    assert in_parts == [any(ended[at : at + size]) for at in range(0, len(data), size)]


@given(st.lists(PIECES, max_size=30).map("".join), st.integers(0, 60))
def test_what_was_open_before_a_cut_is_open_after_it(text, at):
    """A step that is cut anywhere leaves the lines as they are: code stays code, and no step is without words."""
    data = text.encode()
    cut, whole = StepReader(), StepReader()
    cut.feed(data[:at])
    cut.cut()
    assert not cut.feed(b"\n \n"), "nothing was said since"
    cut.feed(data[at:])
    whole.feed(data[:at] + b"\n \n" + data[at:])
    assert (cut.line, cut.fence, cut.display, cut.thought) == (whole.line, whole.fence, whole.display, whole.thought)


def test_from_three_quarters_of_its_limit_a_step_ends_at_a_line():
    assert [line_end_tokens(most) for most in (1, 2, 3, 4, 8, 256)] == [1, 2, 3, 3, 6, 192]


EXAMPLES = [json.loads(line) for line in (Path(__file__).parent / "steps.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("example", EXAMPLES, ids=[one["of"] for one in EXAMPLES])
def test_whole_solutions_are_cut_as_a_person_would(example):
    assert split_steps("".join(example["steps"])) == example["steps"]


def recorded():
    """Texts of a real model where they are at hand; else those beside this file."""
    if not RECORDED.exists():
        return ["".join(example["steps"]) for example in EXAMPLES]
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"].removesuffix("<|im_end|>") for line in lines]


def test_real_solutions_are_cut_in_no_fence_and_no_formula_and_after_no_head():
    """Held against other means than the detector's own: fences are counted before each cut, and brackets looked for."""
    texts, num_cuts, num_short = recorded(), 0, 0
    for text in texts:
        steps = split_steps(text)
        assert "".join(steps) == text
        before = ""
        for step in steps[:-1]:
            before += step
            num_cuts += 1
            assert len(re.findall(r"^\s*(?:>\s*)?(?:\d+\.\s+|-\s+)?```", before, re.MULTILINE)) % 2 == 0, before
            code = re.sub(r"^\s*```.*?^\s*```", "", before, flags=re.DOTALL | re.MULTILINE)
            code = code.replace("\\\\", "")  # line breaks of LaTeX
            assert code.rfind("\\[") <= code.rfind("\\]"), before
            last = step.strip().splitlines()[-1]
            assert not last.endswith(":"), step
            num_short += not re.search(r"\d|\w\W+\w+\W+\w", step)
    assert num_cuts >= 2 * len(texts)
    assert num_short <= num_cuts / 500, "hardly a step is a word or two"
