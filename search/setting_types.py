"""What settings are made of: the kinds of their values, and what a group of them is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from search.ledger import Price

Count = Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str


def _unicode(value: str) -> str:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must be valid Unicode text")
    return value


Text = Annotated[str, AfterValidator(_unicode)]
Filled = Annotated[str, Field(min_length=1)]


def _several(value: object) -> object:
    """One text as a tuple of it, and a list as a tuple, so that YAML, JSON and Python may give either."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[Filled, ...], BeforeValidator(_several)]
"""Texts that are not empty; one by itself may stand without its list."""


class Group(BaseModel):
    """Settings that go together; a function takes the group that it reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Example(Group):
    """A solved problem that a prompt shows before the question."""

    question: Filled
    answer: Filled


Examples = Annotated[
    tuple[Example, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]


def parse_price(text: str) -> Price:
    """What "INPUT,OUTPUT" says.

    Raises:
        ValueError: it is not two numbers from 0 on.
    """
    try:
        prompt, written = map(float, text.split(","))
    except ValueError:
        prompt = written = -1.0
    if not (0 <= prompt < float("inf") and 0 <= written < float("inf")):
        raise ValueError("must be two numbers with a comma between them, as 0.15,0.6, for a million tokens each")
    return Price(prompt, written)
