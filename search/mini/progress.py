"""Progress of a training, to stderr: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self, TextIO

from search.mini.fit import TrainEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressReport:
    """A ``Report`` to give to ``train``; a context manager, which puts the terminal back in order.

    On a terminal each model has a bar with loss and dev figures; elsewhere each point of the dev curve, and progress
    now and then, is one line.
    """

    def __init__(self, stream: TextIO | None = None, every: int = 6) -> None:
        """Report to a stream.

        Args:
            stream: stderr where not given.
            every: off a terminal, one in so many events without dev figures is written.
        """
        self._stream = stream or sys.stderr
        self._every = every
        self._seen = 0
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=Console(file=self._stream))
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: TrainEvent) -> None:
        """Tell of an event."""
        words = describe(event)
        if self._bars is not None:
            if event.role not in self._tasks:
                self._tasks[event.role] = self._bars.add_task(event.role, total=event.num_steps)
            self._bars.update(self._tasks[event.role], completed=event.step, description=words)
            return
        self._seen += 1
        if event.figures or self._seen % self._every == 0:
            self._stream.write(words + "\n")
            self._stream.flush()


def describe(event: TrainEvent) -> str:
    """An event in one line."""
    words = f"{event.role} {event.step}/{event.num_steps} loss {event.loss:.4f} {event.seconds:.0f} s"
    return " ".join([words, *(f"{name} {value:.3f}" for name, value in event.figures.items())])
