"""What a critic is asked: the words around a problem and its steps, its labels, and what its critiques end with."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from search.errors import ConfigError

_NUMBERED = re.compile(r"^(?:#+ *)?Step \d+: *")
"""A head that a step has already; it is left out where the prompt writes one."""


class CriticExample(BaseModel):
    """A judged solution that is shown before the question.

    Attributes:
        problem, steps: as for the question itself.
        reply: all that the critic is to say to it, verdict included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str = Field(min_length=1)
    steps: tuple[str, ...] = Field(min_length=1)
    reply: str = Field(min_length=1)


class CriticPrompt(BaseModel):
    """How a critic is asked, as a file of YAML may say it.

    The parts stand one after the other: opening, steps, question, and then the critic's turn, which begins with
    `reply`. A critique is written after that, if one is, and `verdict` behind it. Then a label is read.

    Attributes:
        opening: before the steps; {problem} stands for the question.
        step: each step; {step} stands for its text, {number} for its number from 1.
        question: after the steps.
        reply: what the critic's turn begins with.
        verdict: what its verdict follows; a critique ends where it writes so.
        labels: the right answer, then the wrong one; one token each where they are read.
        stop: what else ends a critique; {next} stands for the number of the step after the last. It is cut off.
        temperature: of critiques.
        max_tokens: of a critique.
        examples: judged solutions to show first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    opening: str = "Problem:\n{problem}\n\nA solution, step by step, as far as it is written:\n\n"
    step: str = "{step}\n\n"
    question: str = "Is the last step of this solution right? Answer with one word: Yes or No."
    reply: str = ""
    verdict: str = ""
    labels: tuple[str, str] = ("Yes", "No")
    stop: tuple[str, ...] = ()
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    examples: tuple[CriticExample, ...] = ()

    @field_validator("opening", "step")
    @classmethod
    def _holds(cls, value: str, info: object) -> str:
        name = getattr(info, "field_name", "")
        wanted = "{problem}" if name == "opening" else "{step}"
        if wanted not in value:
            raise ValueError(f"must have {wanted} somewhere")
        return value

    def opened(self, problem: str) -> str:
        """What stands before the steps."""
        return self.opening.replace("{problem}", problem)

    def stepped(self, step: str, number: int) -> str:
        """A step as the critic reads it.

        Args:
            step: its text.
            number: from 1.
        """
        text = step.strip()
        if "{number}" in self.step:
            text = _NUMBERED.sub("", text)
        return self.step.replace("{number}", str(number)).replace("{step}", text)

    def stops(self, number: int) -> tuple[str, ...]:
        """What ends a critique of the step of this number."""
        others = (stop.replace("{next}", str(number + 1)) for stop in self.stop)
        return (self.verdict.strip(), *others)


_VERDICT = "Verdict:"

PROMPTS: Mapping[str, CriticPrompt] = {
    "critic": CriticPrompt(),
    "critic-cot": CriticPrompt(
        question="Check the last step of this solution. Say in a few sentences what it does and whether that follows, "
        f'and work out again what it computes. Then end with the line "{_VERDICT} Yes" if the step is right, or '
        f'"{_VERDICT} No" if it is not.',
        verdict=f"\n\n{_VERDICT}",
    ),
    "thinkprm": CriticPrompt(
        opening="You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n{problem}"
        "\n\n[Solution]\n\n",
        step="Step {number}: {step}\n",
        question="\nReview and critique each step in the proposed solution to determine whether each step is correct. "
        "If the solution is incomplete, only verify the provided steps.",
        reply="Let's verify step by step:",
        verdict="\nIs the solution correct?",
        stop=("</think>", "Step {next}:"),
        max_tokens=4096,
    ),
}
"""`thinkprm`: the words that ThinkPRM (arXiv 2504.16828) was trained on, as its authors' repository has them. Differs:
its code then scores "yes" against "no" in small letters; its training texts have capitals, which are read here."""


def parse_prompt(text: str, kind: str) -> CriticPrompt:
    """A prompt from YAML; what it leaves out is as in the prompt of its kind.

    Args:
        text: a mapping of the fields of `CriticPrompt`.
        kind: "critic" or "critic-cot".

    Raises:
        ConfigError: it is no such mapping; says which field is wrong.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"critic_prompt{where}: not valid YAML") from None
    if not isinstance(values, dict):
        raise ConfigError(f"critic_prompt: must be a mapping; its fields: {', '.join(CriticPrompt.model_fields)}")
    try:
        prompt = CriticPrompt.model_validate({**PROMPTS[kind].model_dump(), **values})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"critic_prompt: unknown field {where!r}; known: {', '.join(CriticPrompt.model_fields)}"
            ) from None
        raise ConfigError(f"critic_prompt: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    if (kind == "critic-cot") != bool(prompt.verdict.strip()):
        raise ConfigError(
            "critic_prompt: verdict: critic-cot needs the words that its verdict follows; critic has none"
        )
    return prompt
