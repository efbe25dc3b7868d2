"""Flags of a dataclass's fields, whose defaults are written there once; and those that every training has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from search.cli.kinds import COUNT, PRECISION, SEED, Number
from search.cli.show import share_progress
from search.support.training import Optimisation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from prm.probe_training import TrainEvent

Command = TypeVar("Command", bound=Callable[..., Any])
Settings = TypeVar("Settings", bound="DataclassInstance")
Flags = dict[str, tuple[str, Any, str, str]]
"""By field: its flag, what that accepts, what its value is called, and what it means."""

_TRAINING: Flags = {
    "num_epochs": ("--epochs", COUNT, "N", "passes over the data"),
    "learning_rate": ("--learning-rate", Number(min=0, min_open=True), "X", "peak of AdamW's rate"),
    "warmup_share": ("--warmup", Number(0, 1), "X", "share of the steps in which the rate rises"),
    "weight_decay": ("--weight-decay", Number(min=0), "X", "of AdamW"),
    "max_tokens": ("--max-tokens", COUNT, "N", "longest text, in tokens"),
    "seed": ("--seed", SEED, "N", "seed of everything"),
    "dtype": ("--dtype", PRECISION, "", "precision of the computation"),
}


def read_layers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Layers as they are given: numbers with commas between them."""
    try:
        return () if value is None else tuple(int(layer) for layer in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: must be numbers with commas between them, e.g. 14,20,28") from None


def field_options(defaults: DataclassInstance, flags: Flags) -> Callable[[Command], Command]:
    """Flags of fields; the defaults are theirs in `defaults`."""

    def decorate(command: Command) -> Command:
        for name, (flag, kind, metavar, meaning) in reversed(flags.items()):
            command = click.option(
                flag, name, type=kind, default=getattr(defaults, name), metavar=metavar or None,
                help=meaning or None,
            )(command)  # fmt: skip
        return command

    return decorate


def training_options(defaults: Optimisation) -> Callable[[Command], Command]:
    """Flags of how weights are trained and where, and `--json`."""

    def decorate(command: Command) -> Command:
        command = click.option("--json", "as_json", is_flag=True, help="print one JSON object")(command)
        command = click.option("--trust-remote-code", is_flag=True, help="run code that comes with the base")(command)
        command = click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N")(command)
        return field_options(defaults, _TRAINING)(command)

    return decorate


@contextmanager
def probe_progress() -> Iterator[Callable[[TrainEvent], None]]:
    """A bar for the training of a probe, as what is to be told of it."""
    told = "layer {0.layer}, held-out AUC within problems {0.figure:.4f}"
    with share_progress("train probe") as bar:
        yield lambda event: bar(event.done, event.total, told.format(event))


def take_settings(kind: type[Settings], options: dict[str, Any]) -> Settings:
    """Settings out of a command's options; what they hold is taken out of these."""
    return kind(**{item.name: options.pop(item.name) for item in fields(kind) if item.name in options})
