"""The plain writer: one model writes every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace

from search.ahead import AheadBuffer
from search.errors import EngineError
from search.parts import Shared
from search.protocols import Engine, PacedEngine, Tokenizer, Writer
from search.support.streams import closing, merge
from search.tree import SearchTree
from search.types import Child, NodeId, Sampling, Step, StepFailure, Usage, WriteJob


def writing_engines(writer: Writer) -> list[Engine]:
    """The engines of a writer that write: all but a router's, which reads and draws nothing."""
    return [engine for role, engine in writer.engines.items() if role != "router"]


class ModelWriter(Shared["ModelWriterSession"]):
    """Has one engine write all steps; a job's children travel as one request."""

    writes_ahead = gives_states = True

    def __init__(self, engine: Engine, name: str = "policy") -> None:
        """Write with `engine`; `name` stands on each node it writes."""
        super().__init__()
        self.engine = engine
        self.name = name

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The one engine, as "policy"."""
        return {"policy": self.engine}

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's tokenizer."""
        return self.engine.tokenizer

    def _session(self, tree: SearchTree) -> ModelWriterSession:
        return ModelWriterSession(AheadBuffer(self.engine, tree.id), self.name)


class ModelWriterSession:
    """The plain writer at work on one tree."""

    def __init__(self, buffer: AheadBuffer, name: str) -> None:
        """Write by way of `buffer`."""
        self._buffer, self._name = buffer, name

    async def write(
        self, tree: SearchTree, jobs: Sequence[WriteJob], sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        """Write every child of every job; a job whose request fails yields failures for what it still owed."""
        async for result in merge([self._write_job(tree, job, sampling) for job in jobs]):
            yield result

    async def _write_job(
        self, tree: SearchTree, job: WriteJob, sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        owed = {tree[child].seed: child for child in job.children}
        children = [Child(seed, seed) for seed in owed]
        limited = replace(sampling, max_new_tokens=job.max_new_tokens)
        problem = "the engine ended without this step"
        try:
            async with closing(self._buffer.generate(tree.prefix(job.node), children, limited)) as made:
                async for step in made:
                    node = owed.pop(step.key)
                    yield Step(node, step.ids, step.text, step.finish, self._name, step.seconds, logprobs=step.logprobs)
        except EngineError as error:
            problem = str(error)
        for node in owed.values():
            yield StepFailure(node, problem)

    async def write_ahead(self, tree: SearchTree, job: WriteJob, sampling: Sampling) -> Step | None:
        """Write the child of a job on a fork, to be there when the search itself asks for it; None if that failed."""
        async with closing(self.write(tree, [job], sampling)) as results:
            async for result in results:
                return result if isinstance(result, Step) else None
        return None

    async def longer_than(self, key: int, num_tokens: int) -> None:
        """As `search.protocols.PacedSession`."""
        if isinstance(self._buffer.engine, PacedEngine):
            await self._buffer.engine.longer_than(self._buffer.tree, key, num_tokens)
        else:
            await asyncio.Event().wait()

    async def states(self, tree: SearchTree, node: NodeId, layers: Sequence[int]) -> tuple[float, ...]:
        """As `search.protocols.StateSession`."""
        return await self._buffer.read(tree.prefix(node), "hidden", layers)

    def usage(self) -> Mapping[str, Usage]:
        """What the engine did for the tree, as "policy"."""
        return {"policy": self._buffer.usage()}

    async def release(self, keys: Collection[int] | None) -> None:
        """Free what the engine holds for these nodes, or for the whole tree."""
        await self._buffer.release(keys)
