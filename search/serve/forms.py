"""The two forms of an answer: a chat's message, with its thoughts apart, and a completion's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from search.steps import part_thoughts
from search.tree import Node, SearchTree
from search.types import ROOT, NodeId

if TYPE_CHECKING:
    from search.protocols import Tokenizer


class Told(NamedTuple):
    """What a client gets of a trajectory: what it says, and what was thought before."""

    content: str
    thoughts: str = ""

    def after(self, above: Told) -> Told:
        """What it adds to what was told before."""
        return Told(self.content[len(above.content) :], self.thoughts[len(above.thoughts) :])


@dataclass(frozen=True, slots=True)
class Form:
    """How trajectories are told.

    Attributes:
        raw: a completion's text, and no chat's message.
        thoughts: whether thoughts are given out.
        ends: texts before which what is said ends.
    """

    raw: bool = False
    thoughts: bool = True
    ends: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """OpenAI's name of a whole answer."""
        return "text_completion" if self.raw else "chat.completion"

    @property
    def chunk_kind(self) -> str:
        """OpenAI's name of a piece of a stream."""
        return "text_completion" if self.raw else "chat.completion.chunk"

    def told(self, tree: SearchTree, node: NodeId, *, ended: bool = True) -> Told:
        """What is told of the path to a node.

        Args:
            tree: where it stands.
            node: its end.
            ended: whether nothing more is said. Otherwise what may be the beginning of an end is held back, so that
                what is told of a node always begins with what is told of its parent.
        """
        if node == ROOT:
            return Told("")
        text = tree.solution_text(node)
        if self.raw and self.thoughts:
            return Told(self._cut(text, ended))
        thoughts, spoken = part_thoughts(text)
        return Told(self._cut(spoken, ended), thoughts if self.thoughts else "")

    def _cut(self, text: str, ended: bool) -> str:
        ends_at = [at for end in self.ends if (at := text.find(end)) >= 0]
        if ends_at:
            return text[: min(ends_at)]
        if ended:
            return text
        begun = (size for end in self.ends for size in range(1, len(end)) if text.endswith(end[:size]))
        return text[: len(text) - max(begun, default=0)]

    def choice(self, told: Told, logprobs: Any) -> dict[str, Any]:
        """The fields of a whole choice."""
        if self.raw:
            return {"text": told.content, "logprobs": logprobs}
        message: dict[str, Any] = {"role": "assistant", "content": told.content, "refusal": None}
        if told.thoughts:
            message["reasoning_content"] = told.thoughts
        return {"message": message, "logprobs": logprobs}

    def piece(self, told: Told | None, logprobs: Any, *, role: bool = False) -> dict[str, Any]:
        """The fields of a choice in a piece of a stream; None: a piece that says nothing."""
        if self.raw:
            return {"text": "" if told is None else told.content, "logprobs": logprobs}
        delta: dict[str, Any] = {"role": "assistant"} if role else {}
        if told is not None:
            if told.thoughts:
                delta["reasoning_content"] = told.thoughts
            if told.content or not told.thoughts:
                delta["content"] = told.content
        return {"delta": delta, "logprobs": logprobs}

    def logprobs(self, tokenizer: Tokenizer, nodes: Sequence[Node], offset: int = 0) -> dict[str, Any] | None:
        """The log-probabilities of steps' tokens in OpenAI's shape; None where none were kept.

        Tokens are the policy's own. A step that another model wrote, in tokens of its own, is one entry.

        Args:
            tokenizer: the tree's.
            nodes: the steps.
            offset: a completion's characters before them.
        """
        entries = [entry for node in nodes for entry in _entries(tokenizer, node)]
        if not entries:
            return None
        if not self.raw:
            content = [
                {"token": text, "logprob": logprob, "bytes": _bytes(text), "top_logprobs": []}
                for text, logprob in entries
            ]
            return {"content": content, "refusal": None}
        offsets = [offset]
        for text, _ in entries[:-1]:
            offsets.append(offsets[-1] + len(text))
        return {
            "tokens": [text for text, _ in entries],
            "token_logprobs": [logprob for _, logprob in entries],
            "top_logprobs": None,
            "text_offset": offsets,
        }


def _entries(tokenizer: Tokenizer, node: Node) -> list[tuple[str, float]]:
    if node.logprobs is None:
        return []
    ids = node.ids[: len(node.ids) - node.forced_tokens]
    if len(ids) - len(node.logprobs) not in (0, 1):  # an end token may have none
        return [(node.text, sum(node.logprobs))]
    return [(tokenizer.decode([token]), logprob) for token, logprob in zip(ids, node.logprobs, strict=False)]


def _bytes(text: str) -> list[int] | None:
    """A token's bytes; None where it is a part of a character, whose bytes its text does not tell."""
    return None if "\ufffd" in text else list(text.encode("utf-8", "surrogatepass"))
