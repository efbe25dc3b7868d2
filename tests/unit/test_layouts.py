"""Public layouts by rows made here: what is the text, what is the reference, and what is said of it."""

import json

import pytest

from search.errors import ConfigError, DataError
from search.problems.data import load_problems, read_data

LIST = {"text": ["two", "three", "four"], "label": ["A", "B", "C"]}

LAYOUTS = {
    "gsm8k": ({"question": "x", "answer": "So.\n#### 1,005"}, "x", "1,005"),
    "svamp": (
        {"Body": "Ann has 2 pens", "Question": "How many?", "Answer": 2.0, "Equation": "2", "ID": "c-1"},
        "Ann has 2 pens. How many?",
        "2",
    ),
    "asdiv": ({"body": "Ann has 2.", "question": "How many? ", "answer": "2 (big pens)", "formula": "2=2"},
              "Ann has 2. How many?", "2"),
    "tabmwp": (
        {"question": "How many?", "table_title": "Pens", "table": "a | 1\nb | 2", "choices": None, "answer": "1,234"},
        "Pens\na | 1\nb | 2\nHow many?",
        "1,234",
    ),
    "olympiadbench": (
        {"context": "Let a.", "question": "Find both.", "solution": ["long"], "final_answer": ["$2$", "$-2$"]},
        "Let a.\nFind both.",
        "2, -2",
    ),
    "gaokao2024_mix": (
        {"question": "x A. {1} B. {2}", "answer": "B. {2}", "choice_answer": "B"}, "x A. {1} B. {2}", "B"),
    "agieval": (
        {"passage": None, "question": "x", "options": ["(A)$1$", "(B)$2$"], "label": "B", "answer": None},
        "x\n(A)$1$\n(B)$2$",
        "B",
    ),
    "aqua": ({"question": "x", "options": ["A)1", "B)2"], "rationale": "2", "correct": "B"}, "x\nA)1\nB)2", "B"),
    "mathqa": ({"Problem": "x", "options": "a ) 38 , b ) 27 , c ) none", "correct": "b"},
               "x\na ) 38 , b ) 27 , c ) none", "b"),
    "arc": ({"question": "x", "choices": LIST, "answerKey": "B"}, "x\nA) two\nB) three\nC) four", "B"),
    "openbookqa": ({"question_stem": "x", "choices": LIST, "answerKey": "C"}, "x\nA) two\nB) three\nC) four", "C"),
    "mmlu_pro": ({"question": "x", "options": ["7", "8"], "answer": "B", "answer_index": 1}, "x\nA) 7\nB) 8", "B"),
    "mmlu": ({"question": "x", "subject": "a", "choices": ["1", "0"], "answer": 1}, "x\nA) 1\nB) 0", "B"),
    "cmmlu": ({"Question": "x", "A": 1, "B": 2, "C": 3, "D": 4, "Answer": "C"}, "x\nA) 1\nB) 2\nC) 3\nD) 4", "C"),
    "sat_math": ({"id": "7", "question": "x", "options": "A) $f(A)$ B) 2 C) 3", "Answer": "C"},
                 "x\nA) $f(A)$ B) 2 C) 3", "C"),
    "mgsm": ({"question": "x", "answer": None, "answer_number": 18, "equation_solution": None}, "x", "18"),
    "multiarith": ({"iIndex": 3, "sQuestion": "x", "lSolutions": [39.0], "lEquations": ["X=39"]}, "x", "39"),
    "mawps": ({"input": "x", "target": 8.0, "type": "singleeq"}, "x", "8"),
    "carp": ({"content": "x", "answer": "b ^ { 2 }", "steps": "long"}, "x", "b ^ { 2 }"),
    "metamath": ({"query": "x", "response": "Two and two.\n#### 4\nThe answer is: 4", "type": "a"}, "x", None),
    "math": ({"problem": "x", "level": "Level 5", "type": "Algebra", "solution": "so \\boxed{\\frac{1}{2}}."}, "x",
             "\\frac{1}{2}"),
    "minerva_math": ({"problem": "x", "solution": "\\boxed{1.6} \\mathrm{~cm}", "type": "a"}, "x", "1.6"),
    "math500": ({"problem": "x", "solution": "\\boxed{9}", "answer": "5", "unique_id": "test/1.json"}, "x", "5"),
    "college_math": ({"data_topic": "a", "question_number": "e.1", "question": "x", "answer": "$1$"}, "x", "1"),
    "a common layout": ({"problem": "x", "answer": 27.0, "url": "a", "question": "x"}, "x", "27"),
}  # fmt: skip
del LAYOUTS["metamath"]  # its response ends in a phrase and has a test of its own


def write(tmp_path, *rows):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_is_recognised(tmp_path, name):
    row, text, reference = LAYOUTS[name]
    data = read_data(write(tmp_path, row))
    (problem,) = data.problems
    assert (problem.text, problem.answer) == (text, reference)
    assert data.layout.startswith(f"read as {name}: problem = ") and "\n" not in data.layout


def test_the_line_that_is_said(tmp_path):
    said = {name: read_data(write(tmp_path, LAYOUTS[name][0])).layout for name in ("asdiv", "aqua", "math", "svamp")}
    assert said == {
        "asdiv": "read as asdiv: problem = body + question, reference = answer without its unit '(big pens)'",
        "aqua": "read as aqua: problem = question, choices = options, reference = correct as the choice's letter",
        "math": "read as math: problem = problem, reference = solution (its last box or ####)",
        "svamp": "read as svamp: problem = Body + Question, reference = Answer, id = ID",
    }


def test_a_response_that_ends_in_its_answer(tmp_path):
    file = write(tmp_path, {"query": "x", "response": "Two and two are four, as anybody can see.\nThe answer is: 4"})
    assert load_problems(file)[0].answer == "4"


def test_the_right_answer_of_gpqa_stands_among_the_wrong_ones_in_an_order_of_their_own(tmp_path):
    rows = [
        {
            "Question": f"x{n}",
            "Correct Answer": f"good {n}",
            **{f"Incorrect Answer {i}": f"bad {n} {i}" for i in (1, 2, 3)},
        }
        for n in range(20)
    ]
    problems = load_problems(write(tmp_path, *rows))
    for number, problem in enumerate(problems):
        assert f"\n{problem.answer}) good {number}" in problem.text
        assert [line[:3] for line in problem.text.splitlines()[1:]] == ["A) ", "B) ", "C) ", "D) "]
    assert {problem.answer for problem in problems} == set("ABCD")
    assert problems == load_problems(write(tmp_path, *rows))


@pytest.mark.parametrize(
    "texts", [("A", "B", "AB", "O"), ("D", "C", "B", "A"), (3, 1, 2, 0), ("b. x", "a. x", "c", "d")]
)
def test_the_right_answer_of_gpqa_is_a_text_even_where_it_looks_like_a_letter(tmp_path, texts):
    """Whose blood type is A: the choice that says so, wherever it came to stand."""
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    (problem,) = load_problems(write(tmp_path, {"Question": "x", **dict(zip(names, texts, strict=True))}))
    assert f"{problem.answer}) {texts[0]}" in problem.text.splitlines()


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["4", "2", "6", "1"], 2, "C"),  # a position, as MMLU has it
        ([4, 2, 6, 1], 2, "B"),  # numbers: a value
        (["4", "2"], "2", "B"),
        (["yes", "no"], "no", "B"),
        (["yes", "no"], "(b)", "B"),
        (["yes", "no"], "B. no", "B"),
        (["yes", "no"], ["A"], "A"),
        ({"A": "yes", "B": "no"}, "B", "B"),
        ([{"label": "A", "text": "yes"}, {"label": "B", "text": "no"}], "B", "B"),
        ({"text": ["yes", "no"], "label": ["1", "2"]}, "2", "2"),
    ],
)
def test_the_letter_of_the_right_choice(tmp_path, choices, answer, letter):
    (problem,) = load_problems(write(tmp_path, {"question": "x", "choices": choices, "answer": answer}))
    assert problem.answer == letter and len(problem.text.splitlines()) == 1 + len(
        choices if "text" not in choices else "12"
    )


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        (["1", "2"], 2, "2, which is none of the choices A, B"),
        (["1", "2"], "C", "'C', which is none"),
        (["1", "1"], "1", "'1', which is none"),
        (["1", "2"], None, "None, which is none"),
        (["1", "2"], True, "True, which is none"),
        ([["1"], ["2"]], "A", "choices of a shape that is not known"),
        ("no letters here", "A", "choices of a shape that is not known"),
        (3, "A", "choices of a shape that is not known"),
        ({"text": ["1"], "label": []}, "A", "choices of a shape that is not known"),
    ],
)
def test_a_reference_that_is_no_choice_is_refused(tmp_path, choices, answer, message):
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        load_problems(write(tmp_path, {"question": "x", "choices": choices, "answer": answer}))


def test_choices_that_the_problem_lists_already_are_not_listed_again(tmp_path):
    text = "Which is even?\nA. 1\nB. 2"
    rows = [{"question": one, "options": ["1", "2"], "answer": "B"} for one in (text, "Is 1 or 2?")]
    one, other = load_problems(write(tmp_path, *rows))
    assert one.text == text
    assert other.text == "Is 1 or 2?\nA) 1\nB) 2", "numbers in a question are no list of choices"


def test_problems_with_choices_and_without_in_one_file(tmp_path):
    rows = [
        {"question": "x", "table": "a | 1", "choices": ["yes", "no"], "answer": "no"},
        {"question": "y", "table": "b | 1", "choices": None, "answer": "3"},
    ]
    assert [one.answer for one in load_problems(write(tmp_path, *rows))] == ["B", "3"]
    mixed = [{"question": "x", "answer": "5"}, {"question": "y", "answer": "C. 7", "choice_answer": "C"}]
    assert [one.answer for one in load_problems(write(tmp_path, *mixed))] == ["5", "C"]


def test_a_final_answer_may_be_a_sentence(tmp_path):
    said = "all positive integers that are powers of 2, and $n=6$ among the others."
    assert load_problems(write(tmp_path, {"question": "x", "final_answer": [said]}))[0].answer == said
    with pytest.raises(DataError, match="line 1: 'answer' holds a text without a final answer"):
        load_problems(write(tmp_path, {"question": "x", "answer": said}))


def test_a_solution_without_its_box_is_refused(tmp_path):
    good = {"problem": "x", "solution": "\\boxed{5}"}
    for text in ("It is 5.", "5", "", "\\boxed{}"):
        with pytest.raises(DataError, match="line 2: 'solution' holds"):
            load_problems(write(tmp_path, good, {"problem": "y", "solution": text}))


FIELDS = {"Story": "Ann has {2} pens", "Ask": "How many?", "Gold": "4", "n": 7, "part": "a", "answer": "wrong"}


def test_fields_are_named_by_column_or_template(tmp_path):
    file = write(tmp_path, FIELDS)
    data = read_data(file, field="problem={Story}, say: {Ask} {{now}},answer=Gold,id={n}/{part}")
    assert [(p.id, p.text, p.answer) for p in data.problems] == [("7/a", "Ann has {2} pens, say: How many? {now}", "4")]
    assert data.layout == (
        "read as --field says: problem = {Story}, say: {Ask} {{now}}, reference = Gold, id = {n}/{part}"
    )
    (problem,) = load_problems(file, field="problem=Ask,answer={Gold}{n}")
    assert (problem.text, problem.answer) == ("How many?", "47")
    (problem,) = load_problems(file, field="problem=Ask")
    assert problem.answer == "wrong", "what is not named is recognised"


def test_named_choices(tmp_path):
    file = write(tmp_path, {"q": "x", "c": ["1", "2"], "gold": "2"})
    (problem,) = load_problems(file, field="problem=q,choices=c,answer=gold")
    assert (problem.text, problem.answer) == ("x\nA) 1\nB) 2", "B")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("", "accepted is problem=COLUMN"),
        ("Ask", "accepted is problem=COLUMN"),
        ("Ask,answer=Gold", "accepted is problem=COLUMN"),
        ("question=Ask", "accepted is problem=COLUMN"),
        ("problem=", "accepted is problem=COLUMN"),
        ("problem=Ask,problem=Story", "accepted is problem=COLUMN"),
        ("problem={Ask,answer=Gold", "names no column"),
        ("problem={},answer=Gold", "names no column"),
        ("problem=Aks,answer=Gold", "--field problem: no row of .* has 'Aks'; there are 'Story', 'Ask', 'Gold'"),
        ("problem={Ask} {Bdy},answer=Gold", "no row of .* has 'Bdy'"),
        ("problem=Ask,choices={Ask} {n},answer=Gold", "must be one column"),
    ],
)
def test_a_field_that_cannot_be_is_one_error(tmp_path, field, message):
    file = write(tmp_path, {name: value for name, value in FIELDS.items() if name != "answer"})
    with pytest.raises(ConfigError, match=message):
        load_problems(file, field=field)


def test_a_field_that_one_row_lacks_is_an_error_of_that_row(tmp_path):
    file = write(tmp_path, FIELDS, {"Ask": "x", "Gold": None}, {"Ask": "y", "Gold": "1"})
    with pytest.raises(DataError, match="line 2: has no 'Story'"):
        load_problems(file, field="problem={Story} {Ask},answer=Gold")
    with pytest.raises(DataError, match="line 2: 'Gold' holds null"):
        load_problems(file, field="problem=Ask,answer=Gold")


def test_columns_that_say_nothing_are_listed(tmp_path):
    with pytest.raises(ConfigError, match=r"no column for the problem's text; there are 'a', 'b'; .*--field problem="):
        load_problems(write(tmp_path, {"a": 1, "b": 2}))
    with pytest.raises(
        ConfigError, match=r"no column for the reference answer; there are 'problem', 'b'; .*--no-refer"
    ):
        load_problems(write(tmp_path, {"problem": "x", "b": 2}))


def test_a_companion_that_is_no_text_is_not_dropped(tmp_path):
    with pytest.raises(DataError, match="line 1: needs a text under 'context'"):
        load_problems(write(tmp_path, {"question": "x", "context": {"a": 1}, "answer": 1}))
