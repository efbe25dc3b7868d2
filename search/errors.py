"""One tree of errors: every failure a caller may want to tell apart has a class here."""

from __future__ import annotations

from collections.abc import Collection


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line of 200 characters at most."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


class SearchError(Exception):
    """Base of all errors raised on purpose by this project."""


class ConfigError(SearchError):
    """The caller's input is wrong. The message says what was wrong and what is accepted."""


def check_choice(what: str, value: object, accepted: Collection[str]) -> None:
    """Refuse a value that is none of those accepted.

    Raises:
        ConfigError: says which they are.
    """
    if value not in accepted:
        raise ConfigError(f"{what} must be one of {', '.join(accepted)}, not {value!r}")


class PromptTooLongError(ConfigError):
    """A problem leaves no room in the model's context."""


class DataError(SearchError):
    """A data file or record cannot be read; the message names the file and, where known, the line."""


class EngineError(SearchError):
    """A model engine could not do what was asked.

    Attributes:
        endpoint: which engine failed: a URL, or the name of an in-process model.
        status: the HTTP status, or None where there was none.
        hint: what a person may do about it; empty if nothing is known.
        retryable: whether the same request may succeed later.
        wait_seconds: how long to wait before that, as a server asked; 0 where it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        endpoint: str = "",
        status: int | None = None,
        hint: str = "",
        retryable: bool = False,
        wait_seconds: float = 0.0,
    ) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.endpoint = endpoint
        self.status = status
        self.hint = hint
        self.retryable = retryable
        self.wait_seconds = wait_seconds


class ContextOverflowError(EngineError):
    """A prefix leaves no room for a new token in the model's context."""


class ScoringError(SearchError):
    """A process reward model gave something that is not a reward in [0, 1]."""


class PolicyError(SearchError):
    """A search policy broke its contract: more children than the budget, a closed node, a negative count."""


class SolverError(SearchError):
    """A linear program could not be solved."""
