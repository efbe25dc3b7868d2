"""Documents to train on, made on the fly: any chunk of any corpus by its number, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search.mini.checker import check_steps, split_steps
from search.mini.problems import MiniProblem, format_prompt, problem
from search.mini.solutions import (
    CLEAN_RATES,
    DRAFT_RATES,
    DRILL_RATES,
    SPLIT_RATE,
    TARGET_RATES,
    SlipRates,
    write_solution,
)
from search.mini.tokenizer import EOS_TOKEN, PAD_TOKEN, encode, encode_batch, token_id
from search.mini.wording import BAD_LABEL, GOOD_LABEL, STEP_SEPARATOR

BATCHES_PER_CHUNK = 32
TRAIN_SPLITS = ("train", "train", "train", "train-easy", "train-medium", "train-hard")
DRILL_SPLIT_RATE = 0.2


@dataclass(frozen=True, slots=True)
class Document:
    """A prompt and a solution as token ids, with the label of each step.

    Attributes:
        ids: prompt, steps with their separators, end token.
        num_prompt_tokens: length of the prompt.
        ends: position of each step's last token.
        labels: whether each step is right given what stands before it.
    """

    ids: tuple[int, ...]
    num_prompt_tokens: int
    ends: tuple[int, ...] = ()
    labels: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents padded on the right.

    Attributes:
        ids: (num_documents, length).
        wanted: (num_wanted,) flat positions whose next-token loss counts.
        targets: (num_wanted,) the tokens wanted there.
        weights: (num_wanted,) their weights in the loss.
        num_tokens: tokens that are no padding.
    """

    ids: Tensor
    wanted: Tensor
    targets: Tensor
    weights: Tensor
    num_tokens: int


def policy_documents(seed: str, chunk: int, count: int, rates: SlipRates) -> list[Document]:
    """A chunk of a policy's corpus: one solution to each of ``count`` fresh train problems, with slips."""
    return _written(f"{seed}/{chunk}", chunk * count, count, lambda _: rates)


def prm_documents(seed: str, chunk: int, count: int) -> list[Document]:
    """A chunk of the PRM's corpus: labelled solutions of mixed quality.

    8% are clean, 20% as the target slips, 20% as the draft slips, and the rest at rates drawn anew for each document,
    with noise on any result.
    """

    def draw(rng: random.Random) -> SlipRates:
        point = rng.random()
        if point < 0.08:
            return CLEAN_RATES
        if point < 0.28:
            return TARGET_RATES
        if point < 0.48:
            return DRAFT_RATES
        return SlipRates.drawn(rng)

    return _written(f"{seed}/{chunk}", chunk * count, count, draw)


def drill_documents(seed: str, chunk: int, count: int) -> list[Document]:
    """A chunk of the PRM's drills: long stories without traps, mostly in direct steps, half of the hard ones wrong.

    Among drills no context tells how likely a slip is, so a PRM can only learn to check the arithmetic.
    """
    name = f"{seed}/drill/{chunk}"
    return _written(name, chunk * count, count, lambda _: DRILL_RATES, "train-drill", DRILL_SPLIT_RATE)


def _written(
    seed: str,
    start: int,
    count: int,
    rates: Callable[[random.Random], SlipRates],
    split: str | None = None,
    split_rate: float = SPLIT_RATE,
) -> list[Document]:
    rng = random.Random(seed)
    prompts: list[str] = []
    solutions = []
    for number in range(count):
        story = problem(split or rng.choice(TRAIN_SPLITS), start + number)
        prompts.append(format_prompt(story.text))
        solutions.append(write_solution(story, rng, rates(rng), split_rate))
    encoded = zip(encode_batch(prompts), encode_batch([solution.text for solution in solutions]), strict=True)
    labels = [tuple(step.right for step in solution.steps) for solution in solutions]
    return [_document(p, s, label) for (p, s), label in zip(encoded, labels, strict=True)]


def checked_document(story: MiniProblem, solution_ids: Sequence[int], text: str) -> Document | None:
    """A model's own solution, labelled by the checker; None where its steps do not match its tokens.

    Args:
        story: the problem.
        solution_ids: what the model wrote, with the end token if it came to one.
        text: the same as text.
    """
    end = token_id(EOS_TOKEN)
    body = [token for token in solution_ids if token != end]
    verdict = check_steps(story, split_steps(text))
    document = _document(encode(format_prompt(story.text)), body, tuple(v.right for v in verdict.steps))
    return document if len(document.ends) == len(document.labels) and document.labels else None


def _document(prompt: Sequence[int], body: Sequence[int], labels: tuple[bool, ...]) -> Document:
    separator = token_id(STEP_SEPARATOR)
    ids = (*prompt, *body, token_id(EOS_TOKEN))
    start = len(prompt)
    ends = [place for place in range(start, len(ids) - 1) if ids[place] == separator]
    return Document(ids, start, (*ends, len(ids) - 1), labels)


def solution_batch(documents: Sequence[Document]) -> Batch:
    """A batch whose loss counts every token of the solutions."""
    ids, length = padded(documents)
    wanted: list[int] = []
    targets: list[int] = []
    for row, document in enumerate(documents):
        for place in range(document.num_prompt_tokens - 1, len(document.ids) - 1):
            wanted.append(row * length + place)
            targets.append(document.ids[place + 1])
    return _batch(ids, wanted, targets, [1.0 / len(wanted)] * len(wanted), documents)


def label_batch(documents: Sequence[Document], writing_weight: float = 0.0) -> Batch:
    """A batch whose loss counts the label token after each step's last token, and the words of right steps.

    Args:
        documents: with labels.
        writing_weight: weight of the words against the labels. To predict what a right step says is the better part
            of telling a wrong one.
    """
    good, bad = token_id(GOOD_LABEL), token_id(BAD_LABEL)
    ids, length = padded(documents)
    wanted: list[int] = []
    targets: list[int] = []
    words: list[int] = []
    word_targets: list[int] = []
    for row, document in enumerate(documents):
        wanted.extend(row * length + place for place in document.ends)
        targets.extend(good if label else bad for label in document.labels)
        start = document.num_prompt_tokens
        for end, label in zip(document.ends, document.labels, strict=True):
            if label and writing_weight:
                words.extend(range(row * length + start, row * length + end))
                word_targets.extend(document.ids[start + 1 : end + 1])
            start = end + 1
    weights = [1.0 / len(wanted)] * len(wanted)
    weights.extend([writing_weight / max(1, len(words))] * len(words))
    return _batch(ids, wanted + words, targets + word_targets, weights, documents)


def in_batches(documents: list[Document], size: int, rng: random.Random) -> list[list[Document]]:
    """Cut documents into batches of similar lengths, the batches in random order; a short last one is dropped."""
    ordered = sorted(documents, key=lambda document: len(document.ids))
    batches = [ordered[place : place + size] for place in range(0, len(ordered) - size + 1, size)]
    rng.shuffle(batches)
    return batches


def padded(documents: Sequence[Document]) -> tuple[Tensor, int]:
    """The ids of documents padded on the right, (num_documents, length), and that length."""
    length = max(len(document.ids) for document in documents)
    ids = torch.full((len(documents), length), token_id(PAD_TOKEN))
    for row, document in enumerate(documents):
        ids[row, : len(document.ids)] = torch.tensor(document.ids)
    return ids, length


def _batch(
    ids: Tensor, wanted: list[int], targets: list[int], weights: list[float], documents: Sequence[Document]
) -> Batch:
    num_tokens = sum(len(document.ids) for document in documents)
    return Batch(ids, torch.tensor(wanted), torch.tensor(targets), torch.tensor(weights), num_tokens)
