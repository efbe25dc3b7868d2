"""How far rounding moves a model's results, measured on the model itself: the bound of the self-check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a module's forward, by place and by name."""


def rms(x: Tensor) -> Tensor:
    """Root mean square over the last dimension, in float64."""
    return x.double().square().mean(-1).sqrt()


def hidden_of(call: Call) -> Tensor:
    """The hidden states among a module's arguments: the first tensor."""
    args, kwargs = call
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def output_of(result: Any) -> Tensor:
    """A module's output: itself, or the first of a tuple."""
    found: Tensor = result if isinstance(result, Tensor) else result[0]
    return found


@contextmanager
def watching(modules: list[nn.Module], see: Callable[[int, Call, Tensor], None]) -> Iterator[None]:
    """Shows each call of the modules: the module's number, its arguments, its output."""

    def hook(number: int) -> Callable[..., None]:
        return lambda module, args, kwargs, result: see(number, (args, kwargs), output_of(result))

    handles = [module.register_forward_hook(hook(n), with_kwargs=True) for n, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def call_with(module: nn.Module, call: Call, hidden: Tensor) -> Tensor:
    """A module's output for other hidden states, all else as in `call`."""
    (args, kwargs), old = call, hidden_of(call)
    return output_of(
        module(
            *(hidden if value is old else value for value in args),
            **{key: hidden if value is old else value for key, value in kwargs.items()},
        )
    )


def call_wider(module: nn.Module, call: Call, hidden: Tensor) -> Tensor:
    """The same with weights, arguments and arithmetic in twice the precision."""
    wide, old = WIDER[hidden.dtype], hidden_of(call)

    def widen(value: Any) -> Any:
        value = hidden if value is old else value
        return value.to(wide) if isinstance(value, Tensor) and value.is_floating_point() else value

    weights = {name: widen(weight) for name, weight in (*module.named_parameters(), *module.named_buffers())}
    args, kwargs = tree_map(widen, call)
    return output_of(torch.func.functional_call(module, weights, args, kwargs))


@contextmanager
def last_digits(network: Any, dtype: torch.dtype) -> Iterator[None]:
    """Changes the last digit of what every module without children puts out, at random, but for the logits.

    That is Monte Carlo arithmetic (Parker, "Monte Carlo Arithmetic", 1997) by the module instead of the operation.
    """
    generator = torch.Generator().manual_seed(0)
    step = torch.finfo(dtype).eps
    head = network.get_output_embeddings()

    def jitter(module: nn.Module, args: object, result: Any) -> Any:
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return None
        noise = torch.rand(result.shape, generator=generator).to(device=result.device, dtype=torch.float32)
        return (result * (1 + step * (2 * noise - 1))).to(result.dtype)

    leaves = [module for module in network.modules() if not list(module.children()) and module is not head]
    handles = [module.register_forward_hook(jitter) for module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
