"""Prompts: how a question becomes the ids that a policy model continues, and where its steps end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from search.errors import ConfigError
from search.loop.thoughts import closed_thought, thinking_option
from search.plain_text import encode_protected, is_unicode, protect, unprotect
from search.prompt.conversation import Turn, without_system
from search.prompt.template import PromptTemplate
from search.protocols import Tokenizer
from search.setting_groups import PromptSettings
from search.setting_types import Example
from search.types import Prompt

PromptFormat = Literal["chat", "plain", "mini", "qwen-math", "llama-3", "math-shepherd"]

_STEPWISE = (
    "Solve the problem step by step. Leave a blank line after each step. "
    "End with the sentence: The answer is \\boxed{...}."
)
_QWEN_MATH = "Please reason step by step, and put your final answer within \\boxed{}."
_LLAMA_3 = (
    'Solve this math problem in numbered steps. Head each step with "## Step n: " and a few words that say what it '
    "does, put its working on the lines below, and leave one blank line after it. A problem of one or two steps needs "
    "no heads. End with: Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct. In place of answer "
    "stands the number or expression asked for, and nothing else."
)


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How one family of policy models is asked, and what its steps look like.

    Attributes:
        instruction: what stands before the question, as the system's turn where there is a chat template; "" for none.
        chat: whether the tokenizer's chat template is used.
        before, after: around the question where no template is used.
        stop: strings that end a step; they are part of it.
        final: phrases by which a step is known to be a solution's last, for models that do not end their text there.
        step: how a step begins, to be read by people.
    """

    instruction: str = ""
    chat: bool = True
    before: str = ""
    after: str = ""
    stop: tuple[str, ...] = ("\n\n",)
    final: tuple[str, ...] = ()
    step: str = "a paragraph"


STYLES: Mapping[PromptFormat, PromptStyle] = {
    "chat": PromptStyle(_STEPWISE),
    "plain": PromptStyle(_STEPWISE, chat=False, before="Problem: ", after="\n\nSolution:\n\n"),
    "mini": PromptStyle(step="a line of arithmetic"),
    "qwen-math": PromptStyle(_QWEN_MATH),
    "llama-3": PromptStyle(_LLAMA_3, step='"## Step n: ...", then its working'),
    "math-shepherd": PromptStyle(
        chat=False, after="\n", stop=("ки",), final=("The answer is",), step='"Step n: ... ки" on a line'
    ),
}
"""`chat` and `plain` suit any instructed model. `qwen-math`: Qwen2.5-Math's own system prompt. `llama-3`: numbered
heads, as in the Llama-3 evaluations. `math-shepherd`: the bare question, for Mistral and Llemma tuned on MetaMath in
Math-Shepherd's layout (arXiv 2312.08935), which end each step with a tag and a solution with "The answer is". `mini`:
the bare question in the family's own template."""

_PROBE = "1 + 1"
_MARK = "\ufdd1"
"""A noncharacter, which Unicode keeps for such uses: it shows where a template puts a turn."""


def choose_format(requested: str, tokenizer: Tokenizer) -> PromptFormat:
    """Settle "auto" by the tokenizer's chat template: Qwen2.5-Math's and Llama-3's are known by their text.

    Without a template it is plain text. The mini family's template leaves instructions out by itself, so it is `chat`
    like any other, and `mini` says the same without them.

    Raises:
        ConfigError: unknown, or a format was asked for that needs a template where the tokenizer has none.
    """
    if requested not in ("auto", *get_args(PromptFormat)):
        raise ConfigError(f"unknown prompt format {requested!r}; known: auto, {', '.join(get_args(PromptFormat))}")
    sample = tokenizer.chat([{"role": "user", "content": _PROBE}])
    if requested != "auto":
        name: PromptFormat = requested  # type: ignore[assignment]
        if sample is None and STYLES[name].chat:
            raise ConfigError(
                f"prompt {requested}: this model's tokenizer has no chat template; accepted here: plain, "
                "math-shepherd, auto"
            )
        return name
    if sample is None:
        return "plain"
    if _QWEN_MATH in sample:
        return "qwen-math"
    return "llama-3" if "<|start_header_id|>" in sample else "chat"


class PromptRenderer:
    """How one model is asked: its format, and what the settings put in place of the format's own parts.

    What people write (question, examples, system prompt) is text and nothing else; control tokens come from the chat
    template, from a prompt template's own text, and from the assistant's prefix.

    Attributes:
        format: the named format.
        style: its parts, with `stop` and `final` as the settings say.
    """

    def __init__(self, settings: PromptSettings, tokenizer: Tokenizer) -> None:
        """Prepare the prompts of one model.

        Args:
            settings: with the files of its prompts read, as `search.prompt.files.with_files` does.
            tokenizer: the model's.

        Raises:
            ConfigError: the format, the template or an option of it does not fit this model, or its chat template
                leaves the problem, the system prompt or the examples out.
        """
        self.format = choose_format(settings.prompt, tokenizer)
        style = STYLES[self.format]
        self.style = replace(
            style,
            stop=style.stop if settings.stop is None else settings.stop,
            final=style.final if settings.final is None else settings.final,
        )
        self._tokenizer = tokenizer
        self._thinking = settings.thinking
        self._thinks = settings.thinking != "off"
        self._options: dict[str, object] = dict(settings.chat_options)
        system = settings.system_prompt
        self._instruction = style.instruction if system is None else system
        self._system = style.instruction if system is None else self._protect(system.removeprefix("@"))
        examples = settings.few_shot or ()
        assert not isinstance(examples, str), "read by `with_files`"
        self._examples = [
            Example(question=self._protect(one.question), answer=self._protect(one.answer)) for one in examples
        ]
        self._prefix = settings.assistant_prefix or ""
        own = None if settings.prompt_template is None else PromptTemplate.parse(settings.prompt_template)
        self._template = None if own is None else own.compile()
        if style.chat if own is None else "chat" in own.reads:
            self._options = thinking_option(settings.thinking, tokenizer, self._options)
        elif self._options:
            what = f"prompt {self.format}" if own is None else "prompt_template"
            raise ConfigError(f"chat_options: {what} uses no chat template")
        text = self._text(_PROBE)
        if own is None:
            self._check_kept(text, given=system is not None)

    def settled(self) -> dict[str, Any]:
        """The settings of prompts as they are for this model: with the format's own parts where none are given."""
        found: dict[str, Any] = {"prompt": self.format, "stop": self.style.stop, "final": self.style.final}
        if self._thinking == "auto":
            asked = thinking_option("keep", self._tokenizer, self._options)
            turn = [{"role": "user", "content": _PROBE}]
            same = asked == self._options or self._tokenizer.chat(turn, asked) == self._tokenizer.chat(
                turn, self._options
            )
            found["thinking"] = "keep" if same else "off"
        return found if self._template is not None else {**found, "system_prompt": self._instruction}

    def render(self, question: str, earlier: Sequence[Turn] = ()) -> Prompt:
        """The prompt for one question, ending where the first step begins.

        Args:
            question: the last turn.
            earlier: what was said before it. What a system said first joins the instruction.

        Raises:
            ConfigError: the question is empty or no Unicode text, or a template refuses it.
        """
        if not question.strip():
            raise ConfigError("the problem is empty; give its text")
        if not is_unicode(question):
            raise ConfigError("the problem is not valid Unicode text")
        if not all(is_unicode(turn.text) for turn in earlier):
            raise ConfigError("an earlier turn of the conversation is not valid Unicode text")
        turns = [Turn(turn.role, self._protect(turn.text)) for turn in earlier]
        text = self._text(self._protect(question), turns)
        marks = [f"{_MARK}{index};" for index in range(len(turns))]
        marked = [Turn(turn.role, mark) for turn, mark in zip(turns, marks, strict=True)]
        shown = self._text(_PROBE, marked) if turns else ""
        left_out = sum(mark not in shown for mark in marks)
        text += ("" if self._thinks else closed_thought(text, self._tokenizer)) + self._prefix
        if not is_unicode(text):
            raise ConfigError("the prompt is not valid Unicode text: look at its template and its chat options")
        return Prompt(unprotect(text), encode_protected(self._tokenizer, text), left_out)

    def _protect(self, text: str) -> str:
        return protect(self._tokenizer, text)

    def _text(self, question: str, earlier: Sequence[Turn] = ()) -> str:
        first = next((index for index, turn in enumerate(earlier) if turn.role != "system"), len(earlier))
        system = "\n\n".join(filter(None, [self._system, *(turn.text for turn in earlier[:first])]))
        earlier = earlier[first:]
        if self._template is not None:
            return self._template(
                question=question,
                examples=self._examples,
                system=system,
                turns=[{"role": turn.role, "content": turn.text} for turn in earlier],
                chat=self._chat,
                start=self._tokenizer.start,
            )
        return self._turns(system, earlier, question) if self.style.chat else self._plain(system, earlier, question)

    def _shown(self) -> list[Turn]:
        """The examples as turns."""
        return [turn for one in self._examples for turn in (Turn("user", one.question), Turn("assistant", one.answer))]

    def _plain(self, system: str, earlier: Sequence[Turn], question: str) -> str:
        style = self.style
        instruction = f"{system}\n\n" if system else ""
        turns = "".join(
            f"{style.before}{turn.text}{style.after}" if turn.role == "user" else f"{turn.text}\n\n"
            for turn in [*self._shown(), *earlier]
        )
        return f"{self._tokenizer.start}{instruction}{turns}{style.before}{question}{style.after}"

    def _turns(self, system: str, earlier: Sequence[Turn], question: str) -> str:
        turns = [Turn("system", system)] if system else []
        turns += [*self._shown(), *earlier, Turn("user", question)]
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return self._chat(messages)
        except ConfigError:
            simple = without_system(messages)
            if simple == messages:
                raise
            return self._chat(simple)

    def _chat(self, messages: list[dict[str, str]], **options: object) -> str:
        """The model's own chat template, for templates of people too."""
        prompt = self._tokenizer.chat(messages, {**self._options, **options})
        if prompt is None:
            raise ConfigError("prompt_template calls chat, and this model's tokenizer has no chat template")
        return prompt

    def _check_kept(self, text: str, *, given: bool) -> None:
        """Say so where a chat template drops the problem, or what a person gave for it."""
        if _PROBE not in text:
            raise ConfigError(
                f"prompt {self.format}: this model's chat template leaves the problem out, or changes it (as one "
                "for content in parts does); --prompt plain asks without a template"
            )
        parts = [("system_prompt", self._system)] if given else []
        parts += [("few_shot", part) for one in self._examples for part in (one.question, one.answer)]
        for name, part in parts:
            if part.strip() not in text:
                raise ConfigError(f"{name}: this model's chat template leaves it out, or changes it")
