"""Earlier turns of a conversation, whose last turn is the problem that is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that was said before the problem."""

    role: Literal["system", "user", "assistant"]
    text: str


def as_problem(earlier: Sequence[Turn], question: str) -> str:
    """A conversation as one problem, for who judges steps and knows problems only; without turns the question itself.

    What the system said is of how to write, not of what is asked, and is left out.
    """
    names = {"user": "User", "assistant": "Assistant"}
    told = [f"{names[turn.role]}: {turn.text}" for turn in earlier if turn.role in names]
    return "\n\n".join([*told, f"{names['user']}: {question}"]) if told else question


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same messages for a chat template that knows users and assistants alone, taking turns.

    What the system says stands in front of what the user says next; turns of one speaker in a row become one.
    """
    made: list[Message] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if made and made[-1]["role"] == role:
            made[-1]["content"] += f"\n\n{message['content']}"
        else:
            made.append({"role": role, "content": message["content"]})
    return made
