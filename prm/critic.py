"""Critics: any instruct model is asked whether a step is right, at once or after it has written a critique.

The path that is judged is a prefix that all its questions share: a step costs its own tokens and those of the question,
which is given back as soon as it is answered.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from prm.checkpoint import PrmConfig
from prm.codec import Reads, ScorerParts, two_way
from prm.critic_prompt import PROMPTS, CriticPrompt, parse_prompt
from prm.scorer import PrmScorer, PrmSession
from search.errors import ConfigError, EngineError, ScoringError
from search.plain_text import encode_after, encode_protected, protect
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.tree import Node, SearchTree, derive_seed
from search.types import Child, FinishReason, Generation, NodeId, Prefix, Sampling, Segment

LEAST_SHARE = 0.01
"""Of the probability, what the two labels must have together for one of them to be an answer."""

_PROBLEM, _STEPS = "\ufdd2", "\ufdd3"
"""Noncharacters, which Unicode keeps for such uses: they show where a chat template puts the problem and its steps."""

_SLOTS = 1 << 32
"""Keys below a content are from its number times this on; contents count from 0, and there are fewer."""


class CriticCodec:
    """What a critic reads of a tree, as `prm.codec.PrmCodec`, and the question behind it.

    Attributes:
        tokenizer: the critic's.
        prompt: how it is asked.
        verdict_ids: what its verdict follows, where it writes a critique.
        labels: the right answer and the wrong one.
    """

    name: ClassVar[str] = "critic"
    reads: ClassVar[Reads] = "labels"

    def __init__(self, tokenizer: Tokenizer, prompt: CriticPrompt) -> None:
        """Put the prompt into the tokenizer's chat template, or, where it has none, into plain text.

        Raises:
            ConfigError: the template has no place for the conversation, or a label is not one token.
        """
        self.tokenizer, self.prompt = tokenizer, prompt
        turns: list[dict[str, str]] = []
        for example in prompt.examples:
            steps = "".join(prompt.stepped(step, number) for number, step in enumerate(example.steps, 1))
            asked = prompt.opened(example.problem) + steps + prompt.question
            turns += [
                {"role": "user", "content": protect(tokenizer, asked)},
                {"role": "assistant", "content": protect(tokenizer, example.reply)},
            ]
        opening = protect(tokenizer, prompt.opened(_PROBLEM))
        turns.append({"role": "user", "content": f"{opening}{_STEPS}{protect(tokenizer, prompt.question)}"})
        whole = _chat(tokenizer, turns, thinks=bool(prompt.verdict))
        plain = whole is None
        if whole is None:
            behind = {"user": "\n\nAnswer: ", "assistant": "\n\n"}
            whole = tokenizer.start + "".join(turn["content"] + behind[turn["role"]] for turn in turns).rstrip()
        if whole.count(_PROBLEM) != 1 or whole.count(_STEPS) != 1:
            raise ConfigError("its chat template does not show all that a user says")
        # All that stands before the steps, with `_PROBLEM` for the problem, and all behind them; both protected.
        self._head, behind_steps = whole.split(_STEPS)
        self._tail = behind_steps + protect(tokenizer, prompt.reply)
        asked = prompt.verdict or self._tail
        spaced = not asked[-1:].isspace() and (plain or bool(prompt.verdict or prompt.reply))
        right, wrong = (_label(tokenizer, asked, f" {label}" if spaced else label) for label in prompt.labels)
        if right == wrong:
            raise ConfigError(f"labels {prompt.labels[0]!r} and {prompt.labels[1]!r} are the same token to the critic")
        self.labels = (right, wrong)
        self.verdict_ids = encode_after(tokenizer, ".", prompt.verdict) if prompt.verdict else ()

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """All that stands before the steps."""
        return encode_protected(self.tokenizer, self._opened(tree))

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """A step as the prompt writes it."""
        return encode_after(self.tokenizer, self._before(tree, node), self._stepped(node))

    def question_ids(self, node: Node) -> tuple[int, ...]:
        """What stands behind a path that ends with this step, up to where the critic goes on."""
        return encode_after(self.tokenizer, self._stepped(node)[-1:], self._tail)

    def reward(self, outputs: Sequence[float]) -> float:
        """p(right) / (p(right) + p(wrong))."""
        return two_way(outputs[1], outputs[0])

    def _opened(self, tree: SearchTree) -> str:
        return self._head.replace(_PROBLEM, protect(self.tokenizer, tree.question))

    def _before(self, tree: SearchTree, node: Node) -> str:
        return self._opened(tree) if node.depth == 1 else self._stepped(tree.path(node.id)[-2])[-1:]

    def _stepped(self, node: Node) -> str:
        return self.prompt.stepped(protect(self.tokenizer, node.text, written=True), node.depth)


def _chat(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], *, thinks: bool) -> str | None:
    """The conversation through the chat template; where the critic is to answer at once, it is asked not to think."""
    for option in () if thinks else ("enable_thinking", "thinking"):
        try:
            return tokenizer.chat(turns, {option: False})
        except ConfigError:
            continue  # the template has no option of this name
    return tokenizer.chat(turns)


def _label(tokenizer: Tokenizer, before: str, label: str) -> int:
    ids = encode_after(tokenizer, before, label)
    if len(ids) != 1:
        raise ConfigError(f"label {label!r} is {len(ids)} tokens to this critic; the labels must be exactly one each")
    return ids[0]


class CriticScorer(PrmScorer):
    """Rewards each step by how likely a critic calls it right.

    With critiques, the two labels' probabilities are summed over several of them: each counts by how far it comes to a
    verdict at all.

    Attributes:
        model: the critic's name.
        scores_ahead: whether steps written ahead may be scored; a critique is not written for nothing.
    """

    codec: CriticCodec

    def __init__(self, engine: Engine, codec: CriticCodec, model: str, num_critiques: int = 0) -> None:
        """Ask `engine`'s model; 0 critiques: it answers at once."""
        super().__init__(engine, codec)
        self.model = model
        self.scores_ahead = not num_critiques
        self._num_critiques = num_critiques

    def _session(self, tree: SearchTree) -> CriticSession:
        return CriticSession(self, tree, self._num_critiques)

    @classmethod
    def read(cls, name: str) -> PrmConfig:
        """How "critic:MODEL" or "critic-cot:MODEL" is read.

        Raises:
            ConfigError: no model is named, or it is one of a layout that is not spoken here.
        """
        kind, _, model = name.partition(":")
        if not model:
            raise ConfigError(f"prm {name}: name the model that is asked, {kind}:PATH_OR_HUB_ID")
        if "genprm" in model.lower():
            raise ConfigError(
                f"prm {name}: GenPRM's verdict on a step follows the output of Python code that it writes, and its "
                "critiques of the steps before; no code of a model is run here; ThinkPRM and any instruct model are "
                "accepted"
            )
        if _is_thinkprm(model) and kind == "critic-cot":
            return PrmConfig(kind, "ThinkPRM says of all steps together whether they are right")
        return PrmConfig(kind, "it is asked about each step", reduce="min")

    @classmethod
    def build(cls, parts: ScorerParts) -> Self:
        """The scorer of a critic that `engine` has loaded.

        Raises:
            ConfigError: the prompt, or its labels, do not fit the critic.
        """
        assert parts.engine is not None, "a critic is loaded"
        kind, _, model = parts.name.partition(":")
        thinks = kind == "critic-cot"
        given = parts.options["critic_prompt"]
        prompt = PROMPTS["thinkprm" if thinks and _is_thinkprm(model) else kind]
        if given is not None:
            prompt = parse_prompt(str(given), kind)
        number = parts.options.get("critic_samples", 0)
        assert isinstance(number, int)
        try:
            codec = CriticCodec(parts.engine.tokenizer, prompt)
        except ConfigError as error:
            raise ConfigError(f"prm {parts.name}: {error}") from None
        return cls(parts.engine, codec, model, number)


class CriticSession(PrmSession):
    """A critic at work on one tree."""

    codec: CriticCodec

    def __init__(self, critic: CriticScorer, tree: SearchTree, num_critiques: int) -> None:
        """Ask `critic`'s model; 0 critiques: it answers at once."""
        super().__init__(critic.engine, critic.codec, tree)
        self._model, self._num_critiques = critic.model, num_critiques
        self._question_tokens: dict[int, int] = {}  # of each content's question and critiques

    async def _judge(self, tree: SearchTree, node_id: NodeId) -> float:
        path = self._prefix(tree, node_id)
        content = path.segments[-1].key
        question = Segment(self._key(content, 0), self.codec.question_ids(tree[node_id]))
        asked = Prefix(path.tree, (*path.segments, question), path.ahead)
        num_tokens = len(question.ids)
        if self._num_critiques:
            answers, written = await self._critiques(tree, node_id, asked, content)
            num_tokens += written
        else:
            answers = [await self._buffer.label_logprobs(asked, self.codec.labels)]
        if tree.ahead is None:
            self._question_tokens[content] = num_tokens
            await self._buffer.release([question.key])
        log_right, log_wrong = (_log_sum([answer[label] for answer in answers]) for label in (0, 1))
        share = (math.exp(log_right) + math.exp(log_wrong)) / len(answers)
        if share < LEAST_SHARE:
            good, bad = self.codec.prompt.labels
            raise ScoringError(
                f"problem {tree.id.rpartition('#')[0]}: the critic {self._model} answers neither {good!r} nor {bad!r} "
                f"to {tree[node_id].text.strip()[:60]!r}: they have {share:.2g} of the probability, and must have "
                f"{LEAST_SHARE}; critic_prompt may ask in other words, or for other labels"
            )
        return self.codec.reward((log_right, log_wrong))

    async def _critiques(
        self, tree: SearchTree, node_id: NodeId, asked: Prefix, content: int
    ) -> tuple[list[tuple[float, ...]], int]:
        """The labels' log-probabilities after each of several critiques, and the tokens of these."""
        path = tree.path(node_id)
        texts = [node.text for node in path[1:]]
        prompt = self.codec.prompt
        sampling = Sampling(prompt.temperature, 1.0, prompt.max_tokens, prompt.stops(tree[node_id].depth))
        # By what the path says: equal steps below equal paths are one content, whichever of them is asked about.
        children = [
            Child(self._key(content, 2 * number + 1), derive_seed(path[0].seed, "critique", number, *texts))
            for number in range(self._num_critiques)
        ]
        async with closing(self._buffer.generate(asked, children, sampling)) as generations:
            # Those that the search gave up with their step came to nothing.
            written = [critique async for critique in generations if critique.finish is not FinishReason.ABORT]
        if not written:
            raise EngineError("its critiques were given up", endpoint=self._model)
        ends = [
            Prefix(asked.tree, (*asked.segments, *self._ended(critique, sampling.stop)), asked.ahead)
            for critique in written
        ]
        answers = await asyncio.gather(*(self._buffer.label_logprobs(end, self.codec.labels) for end in ends))
        # In an order of their own, not of arrival, so that a sum is the same to its last digit.
        return sorted(answers), sum(end.num_tokens for end in ends) - len(ends) * asked.num_tokens

    def _ended(self, critique: Generation, stops: Sequence[str]) -> list[Segment]:
        """A critique, without its end token and what begins beyond it, and what its verdict follows."""
        tokenizer, ids = self.codec.tokenizer, critique.ids
        if critique.text.endswith(stops[0]):
            return [Segment(critique.key, ids)]
        while ids and ids[-1] in tokenizer.eos_ids:
            ids = ids[:-1]
        text = tokenizer.decode(ids)
        end = min((text.index(stop) for stop in stops if stop in text), default=len(text))
        while len(tokenizer.decode(ids)) > end:
            ids = ids[:-1]
        verdict = Segment(critique.key + 1, self.codec.verdict_ids)
        return [Segment(critique.key, ids), verdict] if ids else [verdict]

    def num_unique_tokens(self) -> int:
        """Tokens of all paths that were judged, each shared one once, and of each step's question and critiques."""
        return super().num_unique_tokens() + sum(self._question_tokens.values())

    def _keys(self, content: int) -> tuple[int, ...]:
        return (content, *(self._key(content, slot) for slot in range(2 * self._num_critiques + 1)))

    @staticmethod
    def _key(content: int, slot: int) -> int:
        """The engine's key of what hangs below a content: 0 the question, then each critique and its verdict."""
        return (content + 1) * _SLOTS + slot


def _is_thinkprm(model: str) -> bool:
    return "thinkprm" in model.lower()


def _log_sum(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities, computed without underflow."""
    most = max(logprobs)
    return most if math.isinf(most) else most + math.log(math.fsum(math.exp(logprob - most) for logprob in logprobs))
