"""Small models with known logits, for the fake engine: their text, their vocabulary, their probabilities."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from search.engines.counter import uniform
from search.engines.stops import TokenTable
from search.errors import ConfigError, EngineError
from search.types import Sampling

EOS = "<eos>"
STEP_END = "\n\n"
GOOD, BAD = "+", "-"

_CHARACTERS = ("\n", *map(chr, range(0x20, 0x7F)))
_WORDS = ("Add ", "Take ", "The answer is ", *(f"\\boxed{{{digit}}}" for digit in range(10)))

STORY_VOCABULARY = (EOS, STEP_END, *_WORDS, *_CHARACTERS)
"""The vocabulary of `story_model`: every printable ASCII text can be encoded with it."""


class FakeTokenizer:
    """Greedy longest match over a list of texts; the end token's text is recognised and never decoded."""

    def __init__(self, vocabulary: Sequence[str], eos: str = EOS) -> None:
        r"""Take a vocabulary of distinct, non-empty texts; a token's id is its position.

        A byte that is no whole character is written as Python's `surrogateescape` does: "\udce2".

        Raises:
            ConfigError: empty or repeated texts, or `eos` not among them.
        """
        if len(set(vocabulary)) != len(vocabulary) or "" in vocabulary:
            raise ConfigError("a vocabulary's texts must be distinct and not empty")
        if eos not in vocabulary:
            raise ConfigError(f"the end token {eos!r} is not in the vocabulary")
        self.vocabulary = tuple(vocabulary)
        pieces = [text.encode("utf-8", "surrogateescape") for text in vocabulary]
        self.table = TokenTable(
            [b"" if text == eos else one for text, one in zip(vocabulary, pieces, strict=True)], pieces
        )
        self._ids = {text: token for token, text in enumerate(vocabulary)}
        self._eos_ids = frozenset({self._ids[eos]})
        by_length = sorted(vocabulary, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, by_length)))

    @property
    def start(self) -> str:
        """Its texts begin with nothing special."""
        return ""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The one end token."""
        return self._eos_ids

    @property
    def controls(self) -> frozenset[str]:
        """The end token's text."""
        return frozenset({self.vocabulary[token] for token in self._eos_ids})

    @property
    def tags(self) -> frozenset[str]:
        """None."""
        return frozenset()

    @property
    def fingerprint(self) -> str:
        """Equal for tokenizers of equal content."""
        return hashlib.sha256("\0".join(self.vocabulary).encode()).hexdigest()

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`.

        Raises:
            EngineError: a part of the text is not in the vocabulary.
        """
        ids, position = [], 0
        while position < len(text):
            match = self._pattern.match(text, position)
            if match is None:
                raise EngineError(f"the fake tokenizer does not know {text[position : position + 10]!r}")
            ids.append(self._ids[match.group()])
            position = match.end()
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, the end token left out."""
        return self.table.join(ids)

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        """None: there is no chat template."""
        return None


class FakeModel(Protocol):
    """A model that can say its logits in closed form."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of each token id."""

    def logits(self, ids: Sequence[int]) -> Sequence[float]:
        """Logits of the token after `ids`, one for each id of the vocabulary; -inf where impossible."""


@dataclass(frozen=True, slots=True)
class MarkovModel:
    """An order-1 Markov chain: the logits depend on the last token alone.

    Attributes:
        vocabulary: the text of each token id.
        table: logits by last token id; each row as long as the vocabulary.
        default: the row of tokens that are not in `table`.
    """

    vocabulary: tuple[str, ...]
    table: Mapping[int, tuple[float, ...]]
    default: tuple[float, ...]

    @classmethod
    def from_probabilities(
        cls,
        vocabulary: Sequence[str],
        rows: Mapping[str, Mapping[str, float]],
        default: Mapping[str, float],
    ) -> MarkovModel:
        """Build a chain from probabilities by token text; what is not named is impossible.

        Args:
            vocabulary: the text of each token id.
            rows: for a last token, the (unnormalised) probabilities of the next.
            default: the same for all other last tokens.

        Raises:
            ConfigError: a token that is not in the vocabulary, or a row without a positive probability.
        """
        ids = {text: token for token, text in enumerate(vocabulary)}

        def row(probabilities: Mapping[str, float]) -> tuple[float, ...]:
            unknown = probabilities.keys() - ids.keys()
            if unknown or not any(p > 0 for p in probabilities.values()):
                raise ConfigError(f"a row of the fake model is wrong: {dict(probabilities)}")
            return tuple(math.log(p) if (p := probabilities.get(text, 0.0)) > 0 else -math.inf for text in vocabulary)

        if unknown := rows.keys() - ids.keys():
            raise ConfigError(f"the fake model has rows for unknown tokens: {sorted(unknown)}")
        table = {ids[text]: row(probabilities) for text, probabilities in rows.items()}
        return cls(tuple(vocabulary), table, row(default))

    def logits(self, ids: Sequence[int]) -> Sequence[float]:
        """The row of the last token."""
        return self.table.get(ids[-1], self.default)


def hashed_reward(ids: Sequence[int]) -> float:
    """A number in [0, 1) that looks random but depends on `ids` alone."""
    digest = hashlib.blake2b(",".join(map(str, ids)).encode(), digest_size=8).digest()
    return uniform(int.from_bytes(digest, "big"), 0)


def hashed_hidden(ids: Sequence[int]) -> tuple[float, ...]:
    """Four numbers in [-1, 1) in place of a hidden state; they depend on `ids` alone."""
    return tuple(2 * hashed_reward((*ids, -1 - number)) - 1 for number in range(4))


@dataclass(frozen=True, slots=True)
class LabelModel:
    """A fake process reward model: after any text it says good with a known probability, else bad.

    Attributes:
        reward: the probability of the good label after these ids, in [0, 1].
        vocabulary: the text of each token id; holds both labels.
    """

    reward: Callable[[Sequence[int]], float] = hashed_reward
    vocabulary: tuple[str, ...] = STORY_VOCABULARY
    good: str = GOOD
    bad: str = BAD
    _ids: tuple[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        labels = (self.vocabulary.index(self.good), self.vocabulary.index(self.bad))
        object.__setattr__(self, "_ids", labels)

    def logits(self, ids: Sequence[int]) -> Sequence[float]:
        """Log-probabilities: the labels', and -inf for all else."""
        good = self.reward(ids)
        row = [-math.inf] * len(self.vocabulary)
        for token, probability in zip(self._ids, (good, 1 - good), strict=True):
            row[token] = math.log(probability) if probability > 0 else -math.inf
        return row


def story_model(right_digit: int = 4, right: float = 0.4, answer: float = 0.3, stray_eos: float = 0.0) -> MarkovModel:
    """A chain that writes short "solutions": steps such as "Add 3.", then a boxed digit as the answer.

    Args:
        right_digit: the digit that the answer shows most often.
        right: its probability; the other nine share the rest.
        answer: probability that a new step is the answer.
        stray_eos: probability that a new step ends the text at once.
    """
    wrong = (1 - right) / 9
    digits = dict.fromkeys("0123456789", 0.1)
    step = {"Add ": (1 - answer - stray_eos) / 2, "Take ": (1 - answer - stray_eos) / 2}
    rows: dict[str, Mapping[str, float]] = {
        STEP_END: {**step, "The answer is ": answer, EOS: stray_eos},
        "Add ": digits,
        "Take ": digits,
        "The answer is ": {f"\\boxed{{{d}}}": right if d == right_digit else wrong for d in range(10)},
        **{digit: {".": 0.7, digit: 0.3} for digit in digits},
        ".": {STEP_END: 1.0},
        **{f"\\boxed{{{digit}}}": {EOS: 1.0} for digit in range(10)},
    }
    return MarkovModel.from_probabilities(STORY_VOCABULARY, rows, {"Add ": 0.5, "Take ": 0.5})


def next_probabilities(logits: Sequence[float], sampling: Sampling) -> list[float]:
    """The distribution a token is drawn from: by temperature, then the smallest nucleus of mass `top_p`.

    At temperature 0 the largest logit has it all. Of equal logits the lowest id counts as the larger.
    """
    if sampling.temperature == 0:
        best = max(range(len(logits)), key=lambda token: (logits[token], -token))
        return [float(token == best) for token in range(len(logits))]
    best_logit = max(logits)
    weights = [math.exp((logit - best_logit) / sampling.temperature) for logit in logits]
    total = math.fsum(weights)
    probabilities = [weight / total for weight in weights]
    if sampling.top_p < 1:
        mass = 0.0
        kept = [0.0] * len(probabilities)
        for token in sorted(range(len(kept)), key=lambda token: (-probabilities[token], token)):
            if mass >= sampling.top_p:
                break
            kept[token] = probabilities[token]
            mass += probabilities[token]
        probabilities = [probability / mass for probability in kept]
    return probabilities


def draw(probabilities: Sequence[float], u: float) -> int:
    """The token at which the cumulative distribution first exceeds `u`, in the order of ids."""
    mass, last = 0.0, 0
    for token, probability in enumerate(probabilities):
        if probability > 0:
            mass += probability
            last = token
            if u < mass:
                return token
    return last
