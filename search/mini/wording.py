"""The words of the stories: what an operation is called in a problem and in a step of its solution."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

STEP_SEPARATOR = "\n\n"
ANSWER_PREFIX = "The answer is \\boxed{"
ANSWER_SUFFIX = "}."
TIMES_SIGN = "x"
GOOD_LABEL = "+"
BAD_LABEL = "-"


class OpKind(StrEnum):
    """What an operation of a story means."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DROP = "drop"
    MAKE = "make"


#: The sign that a right solution writes for each kind.
SIGN: dict[OpKind, str] = {
    OpKind.ADD: "+",
    OpKind.SUB: "-",
    OpKind.MUL: TIMES_SIGN,
    OpKind.DROP: "-",
    OpKind.MAKE: TIMES_SIGN,
}

#: Both traps are misread as an addition.
MISREAD_SIGN = "+"
TRAPS: frozenset[OpKind] = frozenset({OpKind.DROP, OpKind.MAKE})


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to tell an operation.

    Attributes:
        kind: what it means.
        template: the phrase after the subject, with ``{n}`` for its number.
        rest: the phrase of a split's second step, with ``{n}`` for what was left; empty where the operation is
            never split.
    """

    kind: OpKind
    template: str
    rest: str = ""

    @property
    def verb(self) -> str:
        """The phrase's first word, which no two wordings share."""
        return self.template.split(" ", 1)[0]

    def phrase(self, number: int) -> str:
        """The phrase with its number, as it stands in the problem and in a step."""
        return self.template.format(n=number)

    def rest_phrase(self, number: int) -> str:
        """The phrase of a split's second step."""
        return self.rest.format(n=number)


WORDINGS: tuple[Wording, ...] = (
    Wording(OpKind.ADD, "buys {n} more", "buys the other {n}"),
    Wording(OpKind.ADD, "finds {n} more", "finds the other {n}"),
    Wording(OpKind.ADD, "wins {n} more", "wins the other {n}"),
    Wording(OpKind.SUB, "sells {n}", "sells the other {n}"),
    Wording(OpKind.SUB, "loses {n}", "loses the other {n}"),
    Wording(OpKind.SUB, "gives {n} away", "gives the other {n} away"),
    Wording(OpKind.MUL, "swaps each for {n}", "swaps the other {n}"),
    Wording(OpKind.MUL, "trades each for {n}", "trades the other {n}"),
    Wording(OpKind.MUL, "cuts each into {n}", "cuts the other {n}"),
    Wording(OpKind.DROP, "drops {n}"),
    Wording(OpKind.DROP, "leaves {n}"),
    Wording(OpKind.MAKE, "makes {n} times as many"),
    Wording(OpKind.MAKE, "packs {n} times as many"),
)

WORDING_OF_VERB: dict[str, Wording] = {wording.verb: wording for wording in WORDINGS}
WORDINGS_OF_KIND: dict[OpKind, tuple[Wording, ...]] = {
    kind: tuple(wording for wording in WORDINGS if wording.kind is kind) for kind in OpKind
}

NAMES: dict[str, str] = {
    "Ann": "She",
    "Eva": "She",
    "Kim": "She",
    "Lily": "She",
    "Mia": "She",
    "Zoe": "She",
    "Ben": "He",
    "Dan": "He",
    "Leo": "He",
    "Max": "He",
    "Sam": "He",
    "Tom": "He",
}
OBJECTS: tuple[str, ...] = (
    "apples",
    "beads",
    "books",
    "cards",
    "coins",
    "pens",
    "shells",
    "stamps",
    "stones",
    "toys",
)
OPENINGS: tuple[str, ...] = ("has", "owns", "starts with")
QUESTIONS: tuple[str, ...] = ("How many {things} are there now?", "How many {things} are left in the end?")
DISTRACTORS: tuple[str, ...] = (
    "It is day {n} of the month.",
    "The shop is {n} miles away.",
    "A friend is {n} years old.",
)
CONNECTORS: tuple[str, ...] = ("now", "so", "then")


def vocabulary_words() -> tuple[str, ...]:
    """Every word that any text of the family holds, without spaces, signs and numbers, sorted."""
    texts = [
        *(wording.template for wording in WORDINGS),
        *(wording.rest for wording in WORDINGS),
        *NAMES,
        *NAMES.values(),
        *OBJECTS,
        *OPENINGS,
        *QUESTIONS,
        *DISTRACTORS,
        *CONNECTORS,
        "first",
        TIMES_SIGN,
        "The answer is",
    ]
    words = {word.strip(".,?") for text in texts for word in text.split() if "{" not in word}
    return tuple(sorted(words - {""}))
