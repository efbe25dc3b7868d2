"""Weights of a .gguf file that stay packed are those that it dequantises to, and the model is the same one."""

import re

import gguf
import gguf_files
import numpy as np
import pytest
import torch
from gguf_files import TOKENS, Kind, quantise, write_folder, write_gguf
from local_models import run
from torch import nn

from search.config import SearchSettings
from search.engines.huggingface import packed as packed_module
from search.engines.huggingface.gguf import gguf_config, gguf_weights
from search.engines.huggingface.packed import PackedLinear, read_blocks
from search.engines.local import LocalEngine
from search.errors import ConfigError
from search.runs.shared_engines import _engine_keys
from search.setup.registry import make_engine
from search.setup.resolve import record_of, settle
from search.types import Child, Prefix, Sampling, Segment

KINDS = [Kind.Q4_0, Kind.Q4_1, Kind.Q4_K]
DIGIT = torch.finfo(torch.bfloat16).eps
"""Twice the most, relative, that rounding to bfloat16 is off by."""
LARGE = {"hidden_size": 256, "intermediate_size": 512}


def blocks(kind, num_rows, num_columns, seed=0):
    """Quantised rows, and the same dequantised by the gguf package."""
    weights = np.random.default_rng(seed).normal(0.1, 1, (num_rows, num_columns)).astype(np.float32)
    data = quantise(weights, kind)
    return data, torch.from_numpy(gguf.dequantize(data, kind))


def room(layer):
    """How far a packed weight may lie from its like, (out_features, in_features): s and z are rounded."""
    s, z = layer.scales.detach().float().abs().transpose(0, 1).repeat_interleave(32, 1).unbind(-1)
    return DIGIT / 2 * (8 * s + z) * 1.01


def weights_of(layer):
    """The weights as the kernel sees them, by the unit vectors."""
    with torch.no_grad():
        rows = [layer.forward(part) for part in torch.eye(layer.in_features).split(32)]
    return torch.cat(rows).T - (0 if layer.bias is None else layer.bias.float()[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_scale_and_zero_of_a_group_say_what_its_block_says(kind):
    data, wanted = blocks(kind, 3, 512)
    digits, scales = read_blocks(kind.name, data)
    s, z = scales.repeat_interleave(32, 1).unbind(-1)
    assert 0 <= int(digits.min()) < int(digits.max()) == 15
    assert torch.allclose(s * (digits.float() - 8) + z, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 256), (64, 512), (80, 256), (320, 256)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_layer_is_the_layer_but_for_a_last_digit(kind, shape):
    data, wanted = blocks(kind, *shape)
    layer = PackedLinear(shape[1], shape[0]).fill(kind.name, data)
    assert ((weights_of(layer) - wanted).abs() <= room(layer)).all()
    own = weights_of(layer)
    layer.bias = nn.Parameter(torch.arange(shape[0]).to(torch.bfloat16))
    for num_rows in (1, 3, packed_module._MANY_ROWS + 5):
        x = torch.randn(2, num_rows, shape[1]).to(torch.bfloat16)
        plain = x.float() @ own.T
        # Weights of many rows are rounded to bfloat16 before the product, others are not.
        error = DIGIT * (x.float().abs() @ own.abs().T + plain.abs() + 1 + layer.bias.float())
        assert ((layer(x).float() - plain - layer.bias.float()).abs() <= error).all()


def test_many_rows_take_the_way_that_is_faster_for_them(monkeypatch):
    data, _ = blocks(Kind.Q4_K, 320, 256)
    layer = PackedLinear(256, 320).fill("Q4_K", data)
    x = torch.randn(packed_module._MANY_ROWS, 256).to(torch.bfloat16)
    seen = []
    monkeypatch.setattr(packed_module, "linear", lambda rows, w: seen.append(w.shape) or nn.functional.linear(rows, w))
    kernel = layer(x[:-1])
    assert not seen
    many = layer(x)[:-1]
    assert seen == [(256, 256), (64, 256)]
    assert (many - kernel).abs().max() < 0.05 * kernel.abs().max()
    monkeypatch.setattr(packed_module, "_block_features", lambda: 0)
    assert torch.equal(layer(x)[:-1], kernel), "a processor that packs in another way has the kernel alone"


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("llama", Kind.Q4_K), ("llama3", Kind.Q4_0), ("qwen2", Kind.Q4_1), ("qwen2", Kind.Q4_K), ("qwen3", Kind.Q4_K)],
)
def test_tensor_for_tensor_as_transformers_dequantises(kind, weights, tmp_path):
    model = gguf_files.network(kind, **LARGE)
    path = write_gguf(tmp_path / "a.gguf", model, weights)
    config = gguf_config("m", path)
    plain = gguf_weights("m", path, config, torch.bfloat16)
    packed = gguf_weights("m", path, config, torch.bfloat16, packed=True)
    own = dict(packed.named_parameters())
    layers = {name: module for name, module in packed.named_modules() if isinstance(module, PackedLinear)}
    assert len(layers) == 2 * 7
    for name, parameter in plain.named_parameters():
        owner = name.rpartition(".")[0]
        if owner in layers and name.endswith("weight"):
            error = (weights_of(layers[owner]) - parameter.float()).abs()
            assert (error <= room(layers[owner]) + DIGIT / 2 * parameter.float().abs()).all(), name
        else:
            assert torch.equal(own[name], parameter), name
            assert own[name].dtype == torch.bfloat16
    assert torch.equal(packed.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
    num_bytes = sum(m.digits.numel() + 2 * m.scales.numel() for m in layers.values())
    assert num_bytes <= 0.35 * 2 * sum(m.num_parameters for m in layers.values())
    ids = torch.randint(len(TOKENS), (4, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs, exact = (one.eval()(ids).logits.float() for one in (packed, plain, model))
    error, rounding = ((found - exact).square().mean(-1).sqrt() for found in (ours, theirs))
    assert error.mean() < 2 * rounding.mean()
    best = exact.topk(2).values
    clear = best[..., 0] - best[..., 1] > 12 * rounding.clamp(min=rounding.mean())
    assert clear.sum() >= 5
    assert (ours.argmax(-1) == exact.argmax(-1))[clear].all()


def test_tied_embeddings_stay_tied(tmp_path):
    model = gguf_files.network("qwen2", tie_word_embeddings=True)
    path = write_gguf(tmp_path / "a.gguf", model, Kind.Q4_1)
    found = gguf_weights("m", path, gguf_config("m", path), torch.bfloat16, packed=True)
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert torch.equal(found.lm_head.weight, model.lm_head.weight.to(torch.bfloat16))


def test_packed_weights_are_never_dequantised_while_they_are_read(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "a.gguf", gguf_files.network("llama", **LARGE), Kind.Q4_0)
    taken = []
    whole = gguf.dequantize
    monkeypatch.setattr("search.engines.huggingface.gguf._AT_ONCE", 16 * 256)
    monkeypatch.setattr(gguf, "dequantize", lambda data, kind: taken.append(len(data)) or whole(data, kind))
    gguf_weights("m", path, gguf_config("m", path), torch.bfloat16, packed=True)
    assert max(taken) == 16
    assert sum(taken) == 2 * len(TOKENS) + 2 * 2 + 1, "embeddings, output and norms"


async def written(engine):
    prefix = Prefix("t", (Segment(0, engine.tokenizer.encode("the cat 12")),))
    steps = {s.key: s.ids async for s in engine.generate(prefix, [Child(1, 1)], Sampling(0.0, 1.0, 30, ()))}
    await engine.release("t", None)
    await engine.aclose()
    return steps[1]


def test_the_engine_serves_it_and_says_so(tmp_path, recwarn):
    path = str(write_gguf(tmp_path / "a.gguf", gguf_files.network("llama"), Kind.Q4_1))
    ours = LocalEngine.load(path, dtype="bfloat16", gguf_weights="packed")
    theirs = LocalEngine.load(path, dtype="bfloat16")
    assert ours.info.details["attention"] == "cascade" and not recwarn
    assert ours.info.num_parameters == theirs.info.num_parameters
    assert theirs.info.details["gguf_weights"] == "dequantized"
    share = 2 * (32 * 32 * 2 + 16 * 32 * 2 + 3 * 32 * 64) / ours.info.num_parameters
    assert ours.info.details["gguf_weights"] == f"{share:.1%} packed"
    assert len(run(written(ours))) == 30
    run(theirs.aclose())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("packed") / "tiny.gguf", gguf_files.network("llama"), Kind.Q4_0)


def refuse(model, match, **options):
    with pytest.raises(ConfigError, match=match) as caught:
        LocalEngine.load(str(model), **{"dtype": "bfloat16", "gguf_weights": "packed"} | options)
    assert "\n" not in str(caught.value)


def rewritten(file, path, old, new):
    whole = file.read_bytes()
    assert len(old) == len(new) and old in whole
    path.write_bytes(whole.replace(old, new))
    return path


def test_where_it_cannot_be(file, tmp_path, monkeypatch):
    refuse(file, "gguf_weights packed computes in bfloat16, not in float32", dtype="float32")
    refuse(file, "gguf_weights 'half' is not one of dequantized, packed", gguf_weights="half")
    folder = write_folder(tmp_path / "folder", gguf_files.network("llama"))
    refuse(folder, r"for \.gguf files, and this is none")
    refuse(
        rewritten(file, tmp_path / "a.gguf", b"blk.1.ffn_up.w", b"blk.1.ffn_uq.w"), r"lack model\.layers\.1\.mlp\.up"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    refuse(file, "runs on the CPU, not on cuda", device="cuda")


def test_an_architecture_whose_tensors_transformers_changes(file, monkeypatch):
    monkeypatch.setattr("search.engines.huggingface.gguf._PACKED", ("qwen2",))
    refuse(file, "gguf_weights packed reads qwen2, not llama; take gguf_weights dequantized")


def test_a_tensor_of_another_shape_and_a_scale_that_is_no_number(file, tmp_path):
    other = write_gguf(tmp_path / "a.gguf", gguf_files.network("llama", intermediate_size=128), Kind.Q4_0)
    old, new = (key.to_bytes(4, "little") for key in (128, 160))
    name = b"llama.feed_forward_length" + (4).to_bytes(4, "little")
    refuse(rewritten(other, tmp_path / "b.gguf", name + old, name + new), r"ffn_gate\.weight is of shape \(128, 32\)")
    model = gguf_files.network("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("inf")
    with np.errstate(all="ignore"):
        path = write_gguf(tmp_path / "c.gguf", model, Kind.Q4_1)
    refuse(path, r"numbers in its tensor model\.layers\.1\.mlp\.up_proj\.scales are NaN or infinite")


def settings(file, **changed):
    return SearchSettings(**{"policy": str(file), "prm": "mini:prm", "dtype": "bfloat16"} | changed)


def test_the_setting_is_for_the_gguf_files_of_a_search(file):
    packed = settings(file, gguf_weights="packed")
    one = settle(packed)
    assert not one.ignored and record_of(one.settings)["gguf_weights"] == "packed"
    assert "gguf_weights" not in record_of(settle(settings(file)).settings), "earlier runs can be gone on with"
    keys = [dict(_engine_keys(settle(s).settings))["policy"] for s in (packed, settings(file))]
    assert keys[0] != keys[1]
    policy, prm = (make_engine("local", model, packed, None) for model in (str(file), "mini:prm"))
    assert "packed" in policy.info.details["gguf_weights"] and "gguf_weights" not in prm.info.details
    run(policy.aclose())
    run(prm.aclose())
    with pytest.raises(ConfigError, match="none is among mini:target, mini:prm"):
        settle(settings("mini:target", gguf_weights="packed"))
    (note,) = settle(
        settings(file, prm="none", engine="openai:http://h:1", gguf_weights="packed", width=1, dtype="float32")
    ).notes
    assert note == "a model that does not run on engine local does not use gguf_weights packed; left alone"


def test_the_command_line_refuses_in_one_line(file, inside):
    ran = inside("solve", "1 + 1", "--policy", str(file), "--prm", "none", "--gguf-weights", "packed")
    assert (ran.code, ran.out) == (2, "")
    assert "take dtype bfloat16" in ran.err and "Traceback" not in ran.err
    ran = inside("doctor", "--policy", str(file), "--prm", "none", "--gguf-weights", "packed", "--dtype", "bfloat16")
    assert ran.code == 0 and re.search(r"gguf_weights \d\d\.\d% packed", ran.out)
