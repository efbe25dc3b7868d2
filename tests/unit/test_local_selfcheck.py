"""The check at load: rounding passes in both precisions, an attention that is wrong anywhere does not."""

import sys

import pytest
import torch
from local_models import CONTEXT, network
from test_local_loading import gemma2, windowed
from transformers import MistralConfig, MistralForCausalLM

from search.engines.local import forward as forward_module
from search.engines.local import selfcheck
from search.engines.local.forward import CascadeForward, PagedForward, attention_of
from search.engines.local.selfcheck import choose_forward
from search.errors import ConfigError

DTYPES = [torch.float32, torch.bfloat16]
right = forward_module.attend


def chosen(model, dtype, attention="cascade"):
    """The name of the forward that a model gets, and why not the fast one."""
    model = model.to(dtype).eval()
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name = choose_forward(model, CONTEXT, "tiny", attention).name
    return name, " ".join(str(one.message) for one in caught)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "qwen2", "mistral", "neox", "opt"])
def test_rounding_passes(kind, dtype):
    for seed in range(3):
        assert chosen(network(kind, seed), dtype) == ("cascade", "")
    assert chosen(network(kind), dtype, "paged") == ("paged", "")


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_activations_and_scores_pass(dtype):
    """What made a real model in bfloat16 fail: a bias of the keys makes scores of a hundred; a huge channel."""
    model = network("qwen2")
    for layer in model.model.layers:
        layer.self_attn.k_proj.bias.data.normal_(0.0, 30.0, generator=torch.Generator().manual_seed(1))
        layer.mlp.down_proj.weight.data[3] *= 200.0
    assert chosen(model, dtype) == ("cascade", "")


def one_head_off(batch, layer, query, *rest):
    out = right(batch, layer, query, *rest).clone()
    out[:, [0, 1]] = out[:, [1, 0]]
    return out


def one_head_off_in_the_last_layer(batch, layer, *rest):
    return one_head_off(batch, layer, *rest) if layer == 1 else right(batch, layer, *rest)


def one_head_silent(batch, layer, query, *rest):
    out = right(batch, layer, query, *rest).clone()
    out[:, -1] = 0.0
    return out


def one_head_of_another_scale(batch, layer, query, *rest):
    query = query.clone()
    query[0] *= 1.5
    return right(batch, layer, query, *rest)


def another_scale(batch, layer, query, key, value, scale, partial):
    return right(batch, layer, query, key, value, 1.25 * scale, partial)


def turned_too_far(batch, layer, query, *rest):
    """The queries of rows that are written stand one position further, as after a miscounted prefix."""
    query = query.clone()
    half = query.shape[-1] // 2
    inverse = 10_000.0 ** (-torch.arange(half) / half)
    sin, cos = inverse.sin().to(query), inverse.cos().to(query)
    a, b = query[:, : batch.num_lanes].clone().split(half, -1)
    query[:, : batch.num_lanes] = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    return right(batch, layer, query, *rest)


def siblings_confused(batch, layer, query, *rest):
    """Each row sees what its neighbour should."""
    out = right(batch, layer, query, *rest).clone()
    out[: batch.num_lanes] = out[: batch.num_lanes].roll(1, 0)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "wrong",
    [
        one_head_off,
        one_head_off_in_the_last_layer,
        one_head_silent,
        one_head_of_another_scale,
        another_scale,
        turned_too_far,
        siblings_confused,
    ],
)
def test_a_wrong_attention_is_refused(wrong, kind, dtype, monkeypatch):
    monkeypatch.setattr(forward_module, "attend", wrong)
    name, why = chosen(network(kind), dtype)
    assert name == "dense"
    assert "attention of layer" in why
    assert "rounding explains" in why


@pytest.mark.parametrize("wrong", [one_head_off_in_the_last_layer, another_scale, siblings_confused])
def test_a_wrong_attention_over_a_pool_is_refused(wrong, monkeypatch):
    plain = PagedForward.attend

    def over_a_pool(forward, *given):
        monkeypatch.setattr(sys.modules[__name__], "right", lambda *asked: plain(forward, *asked[:-1]))
        return wrong(*given, None)

    monkeypatch.setattr(PagedForward, "attend", over_a_pool)
    name, why = chosen(network("qwen2"), torch.bfloat16, "paged")
    assert name == "dense" and "attention of layer" in why


def test_a_pool_that_does_not_run_here_leaves_arenas_and_says_why(monkeypatch):
    """A kernel that a GPU cannot compile is no reason to fail."""

    def broken(*_):
        raise ArithmeticError("out of resource: shared memory")

    monkeypatch.setattr(PagedForward, "attend", broken)
    monkeypatch.setattr(selfcheck, "has_kernel", lambda device: True)
    name, why = chosen(network("llama"), torch.float32, "auto")
    assert name == "cascade" and "does not run here (out of resource: shared memory)" in why
    monkeypatch.undo()
    assert chosen(network("llama"), torch.float32, "auto") == ("cascade", ""), "a CPU's own choice"


def test_an_unknown_attention_is_said():
    with pytest.raises(ConfigError, match="auto, paged, cascade"):
        chosen(network("llama"), torch.float32, "flash")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [8, 13])
def test_a_window_that_nobody_told_us_of_is_refused(window, dtype, monkeypatch):
    """The longest path has 14 tokens: with a window of 13, one token sees one key too many."""
    monkeypatch.setattr(forward_module, "_refuse_extras", lambda *_: None)
    torch.manual_seed(0)
    config = windowed().config.to_dict() | {"sliding_window": window}
    name, why = chosen(MistralForCausalLM(MistralConfig(**config)), dtype)
    assert (name, "at token" in why) == ("dense", True)
    config["sliding_window"] = 14
    assert chosen(MistralForCausalLM(MistralConfig(**config)), dtype)[0] == "cascade"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_soft_cap_left_out_is_refused(dtype, monkeypatch):
    monkeypatch.setattr(forward_module, "_refuse_extras", lambda *_: None)
    torch.manual_seed(0)
    model = gemma2()
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    name, why = chosen(model, dtype)
    assert (name, "attention of layer 0" in why) == ("dense", True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_positions_that_are_embedded_wrongly_are_refused(dtype, monkeypatch):
    plain = CascadeForward.__call__

    def shifted(self, batch):
        batch.positions[: batch.num_lanes] += 1
        try:
            return plain(self, batch)
        finally:
            batch.positions[: batch.num_lanes] -= 1

    monkeypatch.setattr(CascadeForward, "__call__", shifted)
    name, why = chosen(network("opt"), dtype)
    assert (name, "the input of layer 0" in why) == ("dense", True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_mixes_tokens_outside_attention_is_refused(dtype):
    """Each layer's feed-forward part also reads the token before it in the batch: not a tree's business to know."""
    model = network("llama")
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, args: (args[0] + args[0].roll(1, 1),))
    with pytest.raises(Exception, match="its logits on a tree"):
        choose_forward(model.to(dtype).eval(), CONTEXT, "mixing")


def test_the_check_leaves_no_hook_behind():
    model = network("qwen2")
    before = sum(len(module._forward_hooks) for module in model.modules())
    chosen(model, torch.float32)
    assert sum(len(module._forward_hooks) for module in model.modules()) == before
    with attention_of(model, "eager"), torch.inference_mode():
        assert torch.isfinite(model(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
