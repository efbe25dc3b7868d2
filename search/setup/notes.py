"""What a person must know of a search once its models are loaded."""

from __future__ import annotations

from search.config import SearchSettings
from search.engines.remote.chat_tokens import WHOLE
from search.errors import ConfigError
from search.loop.driver import Driver
from search.loop.writer import writing_engines


def context_notes(driver: Driver, settings: SearchSettings) -> tuple[str, ...]:
    """A line where the policy may write what the reward model has no room for; such steps fail after all the work."""
    if driver.scorer is None:
        return ()
    written = min(engine.info.context_tokens for engine in driver.writer.engines.values())
    read = min((engine.info.context_tokens for engine in driver.scorer.engines.values()), default=written)
    longest = min(written, settings.max_tokens)
    if longest <= read:
        return ()
    return (
        f"the reward model reads {read} tokens, prompt included, and a solution may have {longest}: longer ones fail "
        "after they are written; max_tokens makes them shorter",
    )


def chat_notes(driver: Driver, settings: SearchSettings) -> tuple[str, ...]:
    """How a model behind a chat API writes, as was found out by asking.

    Raises:
        ConfigError: the search goes step by step, and the server writes whole solutions alone.
    """
    notes: list[str] = []
    for info in (engine.info for engine in driver.writer.engines.values()):
        if info.name != "chat":
            continue
        told, continues = info.details, info.details["steps"] != WHOLE
        if not continues and (driver.policy.pace != "leaf" or settings.lookahead):
            what = "lookahead" if driver.policy.pace == "leaf" else f"method {driver.policy.name}"
            raise ConfigError(
                f"{what} goes on from steps, and {settings.engine} does not continue an assistant's turn; it writes "
                "whole solutions, for self-consistency and best-of-n (with a critic or another reward model), and "
                "servers of vLLM and SGLang continue one"
            )
        how = (
            "continues an assistant's turn, so it writes step by step; max_tokens is not kept, only max_step_tokens "
            "and max_depth are"
            if continues
            else "writes whole solutions of max_tokens, which are cut into steps here"
        )
        notes.append(f"engine chat: {info.model} {how}; tokens of the tree and of its KV cache are not known")
        if told["usage"] != "told":
            notes.append(
                "engine chat: the server does not say how many tokens it reads and writes, so none are counted"
            )
    return tuple(notes)


def seed_notes(driver: Driver) -> tuple[str, ...]:
    """A line where steps written ahead are other draws than those that would have been written in their turn."""
    if not driver.speculates:
        return ()
    seedless = [engine.info for engine in writing_engines(driver.writer) if engine.info.seeds == "none"]
    return tuple(
        f"speculate: engine {info.name} of {info.model} repeats no step exactly (it honours no seeds, or its rounding "
        "depends on the batch); results are those of a search without it in distribution, not step for step"
        for info in seedless
    )
