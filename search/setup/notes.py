"""What a person must know of a search once its models are loaded."""

from __future__ import annotations

from search.config import SearchSettings
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


def seed_notes(driver: Driver) -> tuple[str, ...]:
    """A line where steps written ahead are other draws than those that would have been written in their turn."""
    if not driver.speculates:
        return ()
    found = [engine.info for engine in writing_engines(driver.writer) if engine.info.seeds == "none"]
    return tuple(
        f"speculate: engine {info.name} of {info.model} repeats no step exactly (it honours no seeds, or its rounding "
        "depends on the batch); results are those of a search without it in distribution, not step for step"
        for info in found
    )
