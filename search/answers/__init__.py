"""Answers: read out of solutions."""

from search.answers.phrases import MAX_ANSWER_CHARS
from search.answers.reader import read_answer, stated_answer

__all__ = ["MAX_ANSWER_CHARS", "read_answer", "stated_answer"]
