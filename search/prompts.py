"""Prompt formats: how a question becomes the text that a policy model continues, and where its steps end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from search.errors import ConfigError
from search.protocols import Tokenizer

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


def style_of(
    prompt_format: PromptFormat, stop: tuple[str, ...] | None = None, final: tuple[str, ...] | None = None
) -> PromptStyle:
    """A format's style with other ends of steps or other last phrases; None: the format's own."""
    style = STYLES[prompt_format]
    return replace(style, stop=style.stop if stop is None else stop, final=style.final if final is None else final)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; what came from broken bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def render(prompt_format: PromptFormat, question: str, tokenizer: Tokenizer, options: Mapping[str, object] = {}) -> str:
    """The prompt for one question, ending where the first step begins.

    Args:
        prompt_format: as `choose_format` found it.
        question: the problem's text.
        tokenizer: of the model that is asked.
        options: of its chat template.

    Raises:
        ConfigError: the question is empty, or the chat template refuses an option.
    """
    if not question.strip():
        raise ConfigError("the problem is empty; give its text")
    if not is_unicode(question):
        raise ConfigError("the problem is not valid Unicode text")
    style = STYLES[prompt_format]
    if not style.chat:
        instruction = f"{style.instruction}\n\n" if style.instruction else ""
        return f"{tokenizer.start}{instruction}{style.before}{question}{style.after}"
    turn = {"role": "user", "content": question}
    if not style.instruction:
        prompt = tokenizer.chat([turn], options)
    else:
        try:
            prompt = tokenizer.chat([{"role": "system", "content": style.instruction}, turn], options)
        except ConfigError:  # some templates know no system role
            prompt = tokenizer.chat([{"role": "user", "content": f"{style.instruction}\n\n{question}"}], options)
    assert prompt is not None, "choose_format found a template"
    return prompt
