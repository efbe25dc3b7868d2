"""The answer that a person would read in a solution: each kind of writing, and each kind of text that gives none."""

import time

import pytest

from search.answers import read_answer, stated_answer

BOXES = [
    (r"The answer is \boxed{42}.", "42"),
    (r"first \boxed{1}, then \boxed{2}", "2"),
    (r"\boxed{\frac{1}{2}} and more }", r"\frac{1}{2}"),
    (r"\boxed{{{{5}}}}", "{{{5}}}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{1 + \boxed{5} + 2}", "5"),
    (r"\boxed {7}", "7"),
    (r"$x = \boxed{ 7 }$", "7"),
    (r"\boxed{3} and cut off: \boxed{4", "3"),
    (r"}}}{ \boxed{6}", "6"),
    (r"a \\\boxed{6}", "6"),
    ("\\boxed{12}, the answer is 9", "12"),
    (r"Put it in \boxed{}: \boxed{8}. I used \boxed{}", "8"),
    # Without braces, by its other names, and escaped twice.
    (r"So \boxed 7", "7"),
    (r"$\boxed 73$", "73"),
    (r"$\boxed -4.5$", "-4.5"),
    (r"$\boxed\frac{1}{2}$", r"\frac{1}{2}"),
    (r"$\boxed x$", "x"),
    (r"So \fbox{5}", "5"),
    (r"\framebox{12}", "12"),
    (r"\\boxed{6}", "6"),
    # Several in one sentence are one answer.
    (r"\boxed{3}, \boxed{5} and \boxed{7}", "3,5,7"),
    (r"x=\boxed{3} or x=\boxed{4}", "3,4"),
    (r"$x = \boxed{3}$ or $x = \boxed{4}$.", "3,4"),
    (r"The roots are \(\boxed{2}\) and \(\boxed{-3}\).", "2,-3"),
    (r"There are \boxed{3} apples and \boxed{4} pears.", "3,4"),
    (r"$x_1 = \boxed{1}$, $x_2 = \boxed{6}$", "1,6"),
    (r"\boxed{A} and \boxed{C}", "A,C"),
    (r"\boxed{A} \boxed{C}", "A,C"),
    (r"\boxed{5} or \boxed{5}", "5"),
    (r"\boxed{(-\infty,1)} \cup \boxed{(2,3)}", r"(-\infty,1)\cup(2,3)"),
    # ... where they are its results; else the last is.
    (r"So he had \boxed{173} games, and Daniel spent \boxed{4429} dollars.", "4429"),
    (r"He bought \boxed{3}. Then he had \boxed{9}.", "9"),
    (r"First \boxed{3} are gone, so \boxed{4} are left.", "4"),
    (r"It has \boxed{3} sides, which is \boxed{4} less.", "4"),
]

ANNOUNCED = [
    ("The answer is 5.", "5"),
    ("The answer is: 5", "5"),
    ("the final Answer is 3.14. Done.", "3.14"),
    ("The answer is 1. No, the answer is 2.", "2"),
    ("The answer is 8\nor so", "8"),
    ("The answer is 5 apples! Yes.", "5 apples"),
    # Emphasis and labels.
    ("The answer is **73**.", "73"),
    ("Final Answer: 73", "73"),
    ("**Answer:** 18", "18"),
    ("**Answer**: 18", "18"),
    ("**Answer: 18**", "18"),
    ("**The answer is 5**", "5"),
    ("*Answer*: 7", "7"),
    ("Answer: 7", "7"),
    ("ANSWER: 5", "5"),
    ("Ans: 5", "5"),
    ("The answer: 7", "7"),
    ("the answer = 5", "5"),
    ("The answer is `42`.", "42"),
    ('The answer is "yes".', "yes"),
    ("## Final Answer\n\n18", "18"),
    ("**Final Answer**\n\n$18$", "18"),
    ("Final result: 12 km", "12 km"),
    # The next line, and formulas.
    ("The answer is:\n7", "7"),
    ("The answer is:\n\n\\[ 7 \\]", "7"),
    ("The answer is:\n\\[\n7\n\\]", "7"),
    ("The answer is\n$$x = 7$$", "x = 7"),
    ("The answer is:\n\n- 5 apples", "5 apples"),
    ("The answer is:\n```\n5\n```", "5"),
    ("The final answer is \\[ \\frac{1}{2} \\]", r"\frac{1}{2}"),
    (r"The answer is $\frac{3}{4}$.", r"\frac{3}{4}"),
    (r"The answer is \(18\).", "18"),
    ("The answer is $x=3$ or $x=4$.", "$x=3$ or $x=4$"),
    # Around the word.
    ("The answer to the question is 5.", "5"),
    ("The answer for part (b) is 5.", "5"),
    ("The final answer should be 5 apples.", "5 apples"),
    ("So the answer would be 5.", "5"),
    ("The answer is therefore 5.", "5"),
    ("The answer is approximately 3.14.", "3.14"),
    ("The answer is equal to 9.", "9"),
    ("The final answer is 12, as shown.", "12"),
    ("The answer is 7 because 3 + 4 = 7.", "7"),
    ("The answer is 3 * 4 = 12 apples.", "12 apples"),
    ("The answer is 2x + 3 = 7.", "2x + 3 = 7"),
    ("The answer is the number of computers sold, which is 12.", "12"),
    ("The answer is that she has 5 apples left.", "5"),
    ("My answer is 5. I am sure that the answer is correct.", "5"),
    ("The answer is not 4. The answer is 5.", "5"),
    # Choices.
    ("The answer is (C).", "(C)"),
    ("The answer is A. Because it is.", "A"),
    ("Answer: (B) 12", "(B) 12"),
    ("The correct option is B.", "B"),
    # An abbreviation does not end a sentence.
    ("The answer is Mrs. Hilt.", "Mrs. Hilt"),
    ("The answer is **73** dollars.", "73 dollars"),
    ("The final answer is __42__.", "42"),
    ("The answer is <b>42</b>.", "42"),
    ("Answer: *x + 1*", "x + 1"),
    ("The answer is 42 🎉", "42"),
    ("The answer is 42. ✅", "42"),
    ("The answer is 45° ☑️", "45°"),
    ("The answer is 7 apples, not 8.", "7 apples"),
    ("The answer is 5 rather than 6, as one may think.", "5 rather than 6"),
    ("<answer>42</answer>", "42"),
    ("<think>Maybe \\boxed{5}.</think>\n<answer> 42 </answer>", "42"),
    ("<answer>The answer is 42 eggs.</answer> I hope that helps.", "42 eggs"),
    ("<answer>41</answer> No: <answer>\n42\n</answer>", "42"),
    ("<answer>x < 3</answer>", "x < 3"),
    ("<answer>  </answer> So the answer is 7.", "7"),
    ("The answer is Mr. Smith. He won.", "Mr. Smith"),
    ("The answer is Rs. 750.", "Rs. 750"),
    ("The answer is Dr. Lee and St. Paul. Yes.", "Dr. Lee and St. Paul"),
    ("The answer is J. K. Rowling. She wrote it.", "J. K. Rowling"),
    ("The answer is George W. Bush.", "George W. Bush"),
    ("The answer is 5 p.m. on Monday. Done.", "5 p.m. on Monday"),
    ("The answer is 5 ft. 3 in. Done.", "5 ft. 3 in"),
    ("The answer is no. Because it is.", "no"),
    # GSM8K's mark, which is also a heading.
    ("steps\n#### 1,234\n", "1,234"),
    ("#### 1\n#### 2", "2"),
    ("He has 5 left.\n#### 5", "5"),
    ("The answer is 4, or so.\n#### 5", "5"),
    ("#### Step 1: add\nThe answer is 4.", "4"),
]

LANGUAGES = [
    ("答案是 7", "7"),
    ("答案是 7。", "7"),
    ("答案：7", "7"),
    ("最终答案是：7", "7"),
    (r"所以答案为 $\frac{1}{2}$。", r"\frac{1}{2}"),
    ("因此，答案是**18**。", "18"),
    ("故选 C", "C"),
    ("所以正确答案是B。", "B"),
    ("答えは 7 です。", "7"),
    ("答え：7", "7"),
    ("したがって、正解は7です。", "7"),
    ("정답은 7입니다.", "7"),
    ("답: 7", "7"),
    ("La réponse est 7.", "7"),
    ("Réponse finale : 7", "7"),
    ("Die Antwort lautet 7.", "7"),
    ("Die Antwort ist 7.", "7"),
    ("Antwort: 7", "7"),
    ("La respuesta es 7.", "7"),
    ("Respuesta final: 7", "7"),
    ("A resposta é 7.", "7"),
    ("La risposta è 7.", "7"),
    ("Ответ: 7", "7"),
    ("Ответ — 7.", "7"),
    ("Відповідь: 7", "7"),
    ("Odpowiedź: 7", "7"),
    ("Odpowiedź to 7.", "7"),
    ("Odpověď je 7.", "7"),
    ("Het antwoord is 7.", "7"),
    ("Svaret är 7.", "7"),
    ("Svaret er 7.", "7"),
    ("Vastaus on 7.", "7"),
    ("Cevap: 7", "7"),
    ("Η απάντηση είναι 7.", "7"),
    ("Răspunsul este 7.", "7"),
    ("Đáp án là 7.", "7"),
    ("Đáp số: 7", "7"),
    ("Jawabannya adalah 7.", "7"),
    ("Jibu ni 7.", "7"),
    ("الإجابة هي 7", "7"),
    ("התשובה היא 7", "7"),
    ("उत्तर है 7", "7"),
    ("উত্তর হল 7।", "7"),
    ("సమాధానం 7", "7"),
    ("คำตอบคือ 7", "7"),
]

PROSE = [
    ("So Janet makes $18 every day at the farmers' market.", "18"),
    ("She makes 9 * 2 = $18 every day at the farmer’s market.", "18"),
    ("In total, it takes 2 + 1 = 3 bolts.", "3"),
    ("Josh made a profit of $70,000.", "70,000"),
    ("Wendi needs to give her chickens 20 cups of feed in the final meal of the day.", "20"),
    ("Thus, it takes Carla 160 minutes to download the file.", "160"),
    ("So, John is 45 miles from home at the end of the 4 hours.", "45"),
    ("The price after the 20% discount is $80.", "80"),
    ("After 3 days, she has 12 left.", "12"),
    ("Tom had 15 and gave 5 away, so he has 10 left.", "10"),
    (r"The total number of arms is \(35 + 14 = 49\).", "49"),
    ("Therefore, the film will be **21 seconds** long.", "21"),
    ("The boxer will weigh 64 kg, which is 27 kg less than 4 months before.", "64"),
    ("That is 16.2 bags, meaning that they need to buy 17 bags.", "17"),
    ("It takes 2 hours and 30 minutes.", "2 hours and 30 minutes"),
    ("40 and 80 are the piles, so 80 is the answer.", "80"),
    ("So the price is $100 000.", "100 000"),
    ("Their sum is 15.\nI hope this helps!", "15"),
    ("Total = 36 * 3 = 108 feet.\nThis is the answer to the problem.", "108"),
    ("I think it is 7.", "7"),
    ("So the change is -5 degrees.", "-5"),
    ("Each gets 5 apples, i.e. 50% of them.<|im_end|>", "5"),
    ("10 packs * 5 cards per pack = 50 cards<|im_end|>", "50"),
    ("18", "18"),
    ("We add.\n\n**18**", "18"),
]

SILENT = [
    "",
    "nothing",
    "I do not know.",
    "The answer is",
    "####",
    r"The answer is \boxed{7",
    r"The answer is \(\boxed{1080",
    r"The answer is \(\boxed{",
    r"\boxed{}",
    "Therefore, the answer is:\n\n\\[\n7",
    "Therefore, the answer is \\",
    "4. **State the final answer:**\n   -",
    "The answer is not 5.",
    # What is on the way to an answer is none.
    "First, we add 2 + 2 = 4.",
    "To find the total, we add the 5 apples.",
    "Let's denote the price as 5.",
    "Next, we need to multiply by 12:",
    "Then we'll find out how many she needs for her goal of $50.",
    "How much is 5 + 5?",
    "She has 5 apples. How many are left?",
    "Alice has 3 apples and Bob has 4 apples.",
    "He makes `420 / 10` or 12 + 7 pizzas.",
    # Cut off.
    "4. Ann starts with 5.\n\n5. Ann gives away 2.",
    "The sum is:\n\\[ 0.25 \\times 4 = 1.",
    "So she keeps 15 sections.\n\n",
    "   - Her mom already has 12 ounces.\n\n  ",
    "The total is 18 eggs.\nShe has 5 eggs",
    "Nothing is boxed, 42 all the same",
    "Therefore, she needs",
    # Code, and what it printed.
    "```python\nprint(5)\n```",
    "Let's compute it.\n```python\nprint(5)\n```\n```output\n5\n```",
    "She has 5 * 3 = 15 eggs.\n```python\nprint(15)\n```\n",
    "```python\nx = 5\nprint(r'\\boxed{5}')\n```",
    "She has 15 eggs.\n```python\nprint(",
    "~~~\nanswer = 5\nprint('The answer is', answer)\n~~~",
]

THOUGHTS = [
    (r"<think>maybe \boxed{5}</think>I think it is 7.", "7"),
    ("<think>\nmaybe \\boxed{5}\n</think>\n\nI think it is 7.", "7"),
    (r"maybe \boxed{5}</think> The answer is 7.", "7"),
    (r"<think>\boxed{5}</think>", None),
    (r"<think>maybe \boxed{5}", None),
    ("<think>The answer is 5.", None),
    ("<think>a</think>\\boxed{4}<think>b", None),
    (r"<think>a</think> \boxed{3} <think>\boxed{4}</think> So \boxed{7}.", "7"),
    (r"<thinking>The answer is 5.</thinking>\boxed{7}", "7"),
    (r"<THINK>The answer is 5.</THINK>\boxed{7}", "7"),
    ("<thought>5</thought>The answer is 7.", "7"),
    ("<reasoning>The answer is 5.</reasoning>\nThe answer is 7.", "7"),
    ("<scratchpad>The answer is 5.</scratchpad>\nThe answer is 7.", "7"),
    ("◁think▷The answer is 5.◁/think▷The answer is 7.", "7"),
    ("[THINK]The answer is 5.[/THINK]The answer is 7.", "7"),
    ("<|begin_of_thought|>The answer is 5.<|end_of_thought|>The answer is 7.", "7"),
    ("<|START_THINKING|>The answer is 5.<|END_THINKING|>The answer is 7.", "7"),
    ("<|begin_of_thought|>The answer is 5.", None),
    (
        "<|channel|>analysis<|message|>maybe \\boxed{5}<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is 7.<|return|>",
        "7",
    ),
    ("<|channel|>analysis<|message|>maybe \\boxed{5}", None),
]

AROUND = [
    ("The answer is 5.<|im_end|>\n<|im_start|>user\nThe answer is 9.", "5"),
    ("The answer is 5</s>", "5"),
    ("The answer is 5<|eot_id|>", "5"),
    ("```python\nprint(5)\n```\nThe answer is 6.", "6"),
    ("```python\nprint(36.0)\n```\n```output\n36.0\n```\nThere are \\(\\boxed{36}\\) more.", "36"),
    ("```latex\n\\boxed{5}\n```", "5"),
    # A base model goes on with a problem of its own.
    ("The answer is 5.\n\nQuestion: Ann has 3. How many?\nThe answer is 9.", "5"),
    ("\\boxed{5}\n\n**Problem 2:** Ann has 3.\n\\boxed{9}", "5"),
    ("#### 5\nQ: Ann has 3.\nA: #### 9", "5"),
    ("Question: How many are 2 and 3?\nThe answer is 5.", "5"),
    ("Let us see.\nProblem: 2 + 3\nSolution: \\boxed{5}", "5"),
]

CASES = [*BOXES, *ANNOUNCED, *LANGUAGES, *PROSE, *THOUGHTS, *AROUND, *((text, None) for text in SILENT)]


@pytest.mark.parametrize(("text", "answer"), CASES, ids=range(len(CASES)))
def test_what_is_read(text, answer):
    assert read_answer(text) == answer


@pytest.mark.parametrize(("text", "answer"), [*BOXES, *ANNOUNCED], ids=range(len(BOXES) + len(ANNOUNCED)))
def test_a_solution_before_it_changes_nothing(text, answer):
    assert read_answer(f"She has 3 + 4 = 7 eggs.\n\nSo she sells 7 * 2 = 14.\n\n{text}") == answer


def test_of_a_reference_only_what_it_states_is_read():
    assert stated_answer("He has 5 left.\n#### 5") == "5"
    assert stated_answer("So Janet makes $18 every day.") is None
    assert stated_answer("Evelyn has 5") is None


HOSTILE = {
    "open braces": ("", "{", ""),
    "open boxes": ("", r"\boxed{", ""),
    "nested boxes": ("", r"\boxed{", "1"),
    "closing braces": (r"\boxed{", "}", ""),
    "bare boxes": ("", r"\boxed ", ""),
    "many boxes": ("", r"\boxed{1} and ", ""),
    "spaces": (r"The answer is \boxed", " ", ""),
    "backslashes": (r"\boxed{", "\\", ""),
    "phrases": ("", "answer is ", ""),
    "labels": ("", "answer:\n", ""),
    "hashes": ("", "#", ""),
    "stars": ("", "*", ""),
    "digits": ("The answer is ", "9", ""),
    "thousands": (r"\boxed{1", ",000", "}"),
    "thoughts": ("", "<think>", ""),
    "fences": ("", "```a\n", ""),
    "ends": ("", " <|im_end|>", ""),
    "newlines": ("", "\n", ""),
    "blank lines": ("", " \n", ""),
    "sentences": ("", "So. ", ""),
    "equations": ("", "= ", "."),
    "sums": ("", "So 1 + ", "1."),
    "words": ("", "word ", "5."),
}
"""What comes first, what is repeated, what comes last."""


@pytest.mark.parametrize("megabytes", [2, pytest.param(10, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_megabytes_take_linear_time(name, megabytes):
    first, piece, last = HOSTILE[name]
    times = megabytes * 1_000_000 // len(piece)
    text = first + piece * times + last + "}" * times * (name == "nested boxes")
    start = time.process_time()
    read_answer(text)
    # Anything quadratic would take many minutes.
    assert time.process_time() - start < 2 * megabytes
