"""Weights in the processor's own order: the same layer, and a layer that differs stays as it was."""

import pytest
import torch
from local_models import byte_tokenizer, network, run
from torch import nn

from search.engines.local import LocalEngine, blocked, loading
from search.types import Child, Prefix, Sampling, Segment

SUPPORTED = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def layers(*sizes, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(*size, bias=bias) for size in sizes)).to(torch.bfloat16)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 65, 40), (300, 40)])
def test_it_maps_as_the_plain_layers_do(bias, shape):
    stack = layers((40, 96), (96, 24), bias=bias)
    x = torch.randn(shape).to(torch.bfloat16)
    with torch.inference_mode():
        wanted = stack(x)
        assert blocked.block_linears(stack, None) == (2 if SUPPORTED else 0)
        found = stack(x)
    assert found.shape == wanted.shape and found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    assert (not list(stack.parameters())) == (SUPPORTED and not bias), "no weight is held twice"


def test_what_others_use_and_what_is_no_plain_layer_stays():
    class Odd(nn.Linear):
        pass

    stack = nn.Sequential(layers((8, 8)), Odd(8, 8, dtype=torch.bfloat16), layers((8, 8)))
    head = stack[2][0]
    blocked.block_linears(stack, head)
    assert type(stack[1]) is Odd and stack[2][0] is head


@pytest.mark.parametrize("fault", [RuntimeError("no such processor"), AttributeError("no such operation"), None])
def test_an_operation_that_fails_or_differs_changes_nothing(monkeypatch, fault):
    def wrong(self, x):
        if fault is not None:
            raise fault
        return torch.zeros((*x.shape[:-1], self.out_features), dtype=x.dtype)

    monkeypatch.setattr(blocked.BlockedLinear, "forward", wrong)
    stack = layers((40, 96), (96, 24))
    assert blocked.block_linears(stack, None) == 0 and all(type(layer) is nn.Linear for layer in stack)


def test_an_engine_of_a_larger_model_writes_the_same_with_them(monkeypatch):
    def written():
        loaded = loading.prepare(network("qwen2").to(torch.bfloat16), byte_tokenizer(), name="m")
        engine = LocalEngine(loaded)

        async def ids():
            prefix = Prefix("t", (Segment(0, tuple(range(40, 60))),))
            step = [one async for one in engine.generate(prefix, [Child(1, 5)], Sampling(0.0, 1.0, 30))]
            await engine.aclose()
            return step[0].ids

        return run(ids()), loaded.info.details.get("blocked_layers")

    plain, none = written()
    monkeypatch.setattr(loading, "is_small", lambda network: False)
    found, number = written()
    assert found == plain and none is None
    assert int(number) == (2 * 7 if SUPPORTED else 0), "all but the output embeddings"
