"""What flags take: files, counts, seeds, precisions, and finite numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0)
PRECISION = click.Choice(("float32", "bfloat16"))


class Number(click.FloatRange):
    """A finite number within its bounds: to a range alone "nan" lies in every one, and "inf" above each lower end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or what is wrong with it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
