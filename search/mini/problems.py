"""Story-arithmetic problems: any problem of any split by its index, with its exact answer.

A problem is decided by its split and index alone. The splits share no problem: a story's numbers and operations are
hashed into one of ten buckets, and a bucket belongs to test (0), dev (1) or train (2 to 9), whatever the difficulty.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from search.errors import ConfigError
from search.mini.wording import (
    DISTRACTORS,
    NAMES,
    OBJECTS,
    OPENINGS,
    QUESTIONS,
    WORDINGS_OF_KIND,
    OpKind,
    Wording,
)

NUM_BUCKETS = 10
BUCKETS: dict[str, tuple[int, ...]] = {"test": (0,), "dev": (1,), "train": tuple(range(2, NUM_BUCKETS))}
MIN_VALUE, MAX_VALUE = 2, 99
MAX_MISREAD_VALUE = 199
DISTRACTOR_RATE = 0.4


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How long a story is and how often it holds a trap.

    Attributes:
        op_weights: weight of each number of operations. Stories whose numbers do not work out are drawn anew, so long
            ones come out rarer than their weight.
        trap_weights: weight of 0, 1 and 2 traps, likewise; two traps are always of different kinds.
    """

    op_weights: dict[int, float]
    trap_weights: tuple[float, float, float]


DIFFICULTIES: dict[str, Difficulty] = {
    "": Difficulty({3: 0.40, 4: 0.35, 5: 0.25}, (0.25, 0.45, 0.30)),
    "easy": Difficulty({3: 1.0}, (0.70, 0.30, 0.0)),
    "medium": Difficulty({4: 1.0}, (0.25, 0.45, 0.30)),
    "hard": Difficulty({5: 0.5, 6: 0.5}, (0.10, 0.40, 0.50)),
    "drill": Difficulty({6: 1.0}, (1.0, 0.0, 0.0)),
}
SPLITS: tuple[str, ...] = tuple(
    f"{base}-{level}" if level else base for base in ("train", "dev", "test") for level in DIFFICULTIES
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One sentence of a story that changes the count.

    Attributes:
        wording: how it is told.
        number: its operand, at least 2.
    """

    wording: Wording
    number: int

    @property
    def kind(self) -> OpKind:
        """What the operation means."""
        return self.wording.kind

    @property
    def phrase(self) -> str:
        """The phrase after the subject."""
        return self.wording.phrase(self.number)


@dataclass(frozen=True, slots=True)
class MiniProblem:
    """A story and its answer.

    Attributes:
        id: "mini-<split>-<index>".
        text: the story and its question, one paragraph.
        answer: the exact answer, from 2 to 99, as text.
        split: one of ``SPLITS``.
        index: number within the split, from 0.
        name: who the story is about; a step's subject is the name or its pronoun.
        start: the first count.
        operations: what happens, in order; no two share a verb.
    """

    id: str
    text: str
    answer: str
    split: str
    index: int
    name: str
    start: int
    operations: tuple[Operation, ...]

    @property
    def pronoun(self) -> str:
        """The subject that may stand for the name."""
        return NAMES[self.name]


def apply(kind: OpKind, value: int, number: int, *, misread: bool = False) -> int:
    """The count after an operation; a count never falls below zero.

    Args:
        kind: the operation.
        value: the count before.
        number: the operand.
        misread: for a trap, whether it is read as an addition.
    """
    if kind is OpKind.ADD or misread:
        return value + number
    if kind in (OpKind.SUB, OpKind.DROP):
        return max(0, value - number)
    return value * number


def format_prompt(problem_text: str) -> str:
    """The prompt of every mini model: each sentence on its own line, then a blank line.

    A sentence's first word so always follows a newline and every other word a space: one token for each word.
    """
    words = problem_text.split()
    parts: list[str] = []
    for position, word in enumerate(words):
        ends = word[-1] in ".?!" and position + 1 < len(words)
        parts.append(word + ("\n" if ends else " "))
    return "".join(parts).rstrip() + "\n\n"


def problem(split: str, index: int) -> MiniProblem:
    """The problem of a split by its index; the same on every machine.

    Raises:
        ConfigError: if the split is unknown or the index negative.
    """
    base, _, level = split.partition("-")
    if split not in SPLITS:
        raise ConfigError(f"unknown mini split {split!r}; known: {', '.join(SPLITS)}")
    if index < 0:
        raise ConfigError(f"a mini problem's index must be 0 or more, not {index}")
    rng = random.Random(f"mini-family-1/{split}/{index}")
    while True:
        story = _draw(rng, split, index, DIFFICULTIES[level])
        if story is not None and _bucket(story) in BUCKETS[base]:
            return story


def problems(split: str, count: int, start: int = 0) -> Iterator[MiniProblem]:
    """Problems ``start`` to ``start + count - 1`` of a split, in order."""
    return (problem(split, index) for index in range(start, start + count))


def _bucket(story: MiniProblem) -> int:
    skeleton = " ".join([str(story.start), *(f"{op.kind}{op.number}" for op in story.operations)])
    return hashlib.blake2b(skeleton.encode(), digest_size=4).digest()[0] % NUM_BUCKETS


def _draw(rng: random.Random, split: str, index: int, level: Difficulty) -> MiniProblem | None:
    """One try at a story; None where the numbers did not work out."""
    operations = _draw_operations(rng, level)
    if operations is None:
        return None
    start, ops = operations
    value = start
    for op in ops:
        value = apply(op.kind, value, op.number)
    name = rng.choice(sorted(NAMES))
    things = rng.choice(OBJECTS)
    sentences = [f"{NAMES[name]} {op.phrase}." for op in ops]
    if rng.random() < DISTRACTOR_RATE:
        extra = rng.choice(DISTRACTORS).format(n=rng.randint(3, 60))
        sentences.insert(rng.randint(0, len(sentences)), extra)
    sentences.insert(0, f"{name} {rng.choice(OPENINGS)} {start} {things}.")
    sentences.append(rng.choice(QUESTIONS).format(things=things))
    text = " ".join(sentences)
    return MiniProblem(f"mini-{split}-{index}", text, str(value), split, index, name, start, ops)


def _draw_operations(rng: random.Random, level: Difficulty) -> tuple[int, tuple[Operation, ...]] | None:
    num_ops = rng.choices(list(level.op_weights), list(level.op_weights.values()))[0]
    num_traps = rng.choices((0, 1, 2), level.trap_weights)[0]
    traps = rng.sample((OpKind.DROP, OpKind.MAKE), num_traps)
    plain = rng.choices((OpKind.ADD, OpKind.SUB, OpKind.MUL), (0.38, 0.36, 0.26), k=num_ops - num_traps)
    kinds = [*traps, *plain]
    if any(kinds.count(kind) > len(WORDINGS_OF_KIND[kind]) for kind in OpKind):
        return None
    rng.shuffle(kinds)
    wordings = {kind: rng.sample(choices, len(choices)) for kind, choices in WORDINGS_OF_KIND.items()}
    start = rng.randint(5, 60)
    value = misread_value = start
    ops: list[Operation] = []
    for kind in kinds:
        bounds = _number_bounds(kind, value)
        if bounds is None:
            return None
        number = rng.randint(*bounds)
        value = apply(kind, value, number)
        misread_value = max(
            apply(kind, misread_value, number),
            apply(kind, misread_value, number, misread=kind is OpKind.DROP),
        )
        if misread_value > MAX_MISREAD_VALUE:
            return None
        ops.append(Operation(wordings[kind].pop(), number))
    return start, tuple(ops)


def _number_bounds(kind: OpKind, value: int) -> tuple[int, int] | None:
    """Smallest and largest operand that keeps the count in range; None where there is none."""
    if kind is OpKind.ADD:
        low, high = 3, min(60, MAX_VALUE - value)
    elif kind in (OpKind.SUB, OpKind.DROP):
        low, high = 3, min(60, value - MIN_VALUE)
    else:
        low, high = 2, min(9, MAX_VALUE // value)
    return (low, high) if low <= high else None
