"""The text of tokens as bytes, and in which token a step ends: one rule for every engine.

Bytes, because a stop string may begin in one token and end inside the next, and a token may hold part of a character.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.steps import BLANK_LINE, StepReader
from search.types import FinishReason, Prefix, Sampling

_NEW_DECODER = getincrementaldecoder("utf-8")
_PROMPT_TAIL_BYTES = 80


class TokenTable:
    """The bytes of every token id.

    Attributes:
        text: bytes by id; empty for special tokens.
        full: bytes by id, special tokens' written form included, for stop strings that name one.
    """

    def __init__(self, text: list[bytes], full: list[bytes]) -> None:
        """A table of these bytes; both lists have an entry for each id."""
        self.text, self.full = text, full

    def read(self, ids: Iterable[int]) -> bytes:
        """Bytes of tokens, special ones left out."""
        table = self.text
        return b"".join([table[i] for i in ids])

    def join(self, ids: Iterable[int]) -> str:
        """Text of tokens, special ones left out; broken characters become U+FFFD."""
        return self.read(ids).decode("utf-8", errors="replace")

    def step_text(self, prefix: Prefix, ids: Sequence[int], finish: FinishReason) -> str:
        """The text that a step adds, so that the texts of a path's steps are the text of the whole path.

        A character whose last byte the step did not write is left to the next step; where the text ends, it is broken.
        """
        decoder = _NEW_DECODER("replace")
        decoder.decode(_unfinished(self.tail(prefix, 3)))
        return decoder.decode(self.read(ids), final=finish in (FinishReason.EOS, FinishReason.CONTEXT))

    def tail(self, prefix: Prefix, num_bytes: int) -> bytes:
        """The last bytes of a prefix's text: at least so many, where it has them."""
        end = b""
        for segment in reversed(prefix.segments):
            for token in reversed(segment.ids):
                end = self.text[token] + end
                if len(end) >= num_bytes:
                    return end
        return end


def _unfinished(tail: bytes) -> bytes:
    """The bytes at a text's end that begin a character and do not end it."""
    for length, byte in enumerate(reversed(tail[-3:]), start=1):
        if byte >= 0xC0:
            decoder = _NEW_DECODER("replace")
            decoder.decode(tail[-length:])
            return bytes(decoder.getstate()[0])
        if byte < 0x80:
            break
    return b""


@dataclass(slots=True)
class Writing:
    """A step while it is written, as its stop rule sees it.

    Attributes:
        reader: knows what the lines before it left open; None where the rule asks for no blank lines.
        num_read: tokens of the step that the reader has read.
    """

    reader: StepReader | None = None
    num_read: int = 0

    def copy(self) -> Writing:
        """One that goes on from here by itself."""
        return replace(self, reader=self.reader and self.reader.copy())


class StopRule:
    """When a step ends: at an end token, a stop string, or a blank line as `search.steps` reads them.

    Attributes:
        maybe: (vocab,) whether a token can end a step; all others need no further look.
    """

    def __init__(self, table: TokenTable, stops: Sequence[str], eos_ids: frozenset[int]) -> None:
        r"""A rule for these stop strings, of which "\n\n" stands for blank lines."""
        self._table = table
        self._stops = tuple(stop.encode() for stop in stops if stop and stop != BLANK_LINE)
        self._reads_lines = BLANK_LINE in stops
        self._eos_ids = eos_ids
        self._longest = max((len(stop) for stop in self._stops), default=0)
        ends = {stop[-1] for stop in self._stops}
        lines = {ord("\n")} if self._reads_lines else set()
        any_end = frozenset(ends | lines)
        self.maybe: NDArray[np.bool_] = np.fromiter(
            (i in eos_ids or not any_end.isdisjoint(piece) for i, piece in enumerate(table.full)), np.bool_
        )

    def begin(self, prefix: Prefix) -> Writing:
        """What has to be known of a step's prefix, whose first segment is the prompt and each later one a step."""
        if not self._reads_lines:
            return Writing()
        prompt, *steps = prefix.segments
        tail = self._table.tail(Prefix(prefix.tree, (prompt,)), _PROMPT_TAIL_BYTES)
        reader = StepReader.after(tail.decode("utf-8", "replace"))
        for step in steps:
            reader.feed(self._table.read(step.ids))
            reader.cut()
        return Writing(reader)

    def finish(self, writing: Writing, ids: Sequence[int], sampling: Sampling) -> FinishReason | None:
        """Why a step ends with the last of its tokens, if it does; to be asked of every token that `maybe` marks.

        That the limits of tokens are reached is for engines to say; from `sampling.line_end_tokens` on a line's end is.
        """
        token = ids[-1]
        if token in self._eos_ids:
            return FinishReason.EOS
        if not self.maybe[token]:
            return None
        if self._stops and self._is_stop(ids):
            return FinishReason.STOP
        if writing.reader is None or b"\n" not in self._table.text[token]:
            return None
        ended = writing.reader.feed(self._table.read(ids[writing.num_read :]))
        writing.num_read = len(ids)
        if ended and len(ids) >= sampling.min_new_tokens:
            return FinishReason.STOP
        if sampling.line_end_tokens is not None and len(ids) >= sampling.line_end_tokens:
            return FinishReason.LENGTH
        return None

    def find_end(
        self, writing: Writing, written: tuple[int, ...], new: Sequence[int], sampling: Sampling
    ) -> tuple[int, FinishReason | None]:
        """Where a step of tokens that were already looked at, `written`, ends among `new` ones.

        Returns:
            The number of new tokens that are the step's, and why it ended; None where it goes on.
        """
        for number, token in enumerate(new, start=1):
            if self.maybe[token]:
                finish = self.finish(writing, (*written, *new[:number]), sampling)
                if finish is not None:
                    return number, finish
        return len(new), None

    def _is_stop(self, ids: Sequence[int]) -> bool:
        """Whether the last of a step's tokens completed a stop string."""
        table = self._table.full
        tail = table[ids[-1]]
        needed = len(tail) + self._longest - 1
        at = len(ids) - 2
        while at >= 0 and len(tail) < needed:
            tail = table[ids[at]] + tail
            at -= 1
        return any(stop in tail for stop in self._stops)


class StopRules:
    """Rules by number, so that the newest tokens of rows with different rules are looked at in one step.

    Attributes:
        maybe: (num_rules, vocab) `StopRule.maybe` of each.
    """

    def __init__(self, table: TokenTable, eos_ids: frozenset[int]) -> None:
        """No rules yet; those to come look at the tokens of `table` and end at `eos_ids`."""
        self._table, self._eos_ids = table, eos_ids
        self._numbers: dict[tuple[str, ...], int] = {}
        self._rules: list[StopRule] = []
        self.maybe: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)

    def __getitem__(self, number: int) -> StopRule:
        return self._rules[number]

    def number(self, stops: tuple[str, ...]) -> int:
        """The number of the rule with these stop strings, made on first use."""
        if stops not in self._numbers:
            self._numbers[stops] = len(self._rules)
            self._rules.append(StopRule(self._table, stops, self._eos_ids))
            self.maybe = np.stack([rule.maybe for rule in self._rules])
        return self._numbers[stops]

    def rule(self, stops: tuple[str, ...]) -> StopRule:
        """The rule with these stop strings."""
        return self._rules[self.number(stops)]
