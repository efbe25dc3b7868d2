"""What cannot be loaded is refused in one clear line; what is not exact is refused by name, or runs dense."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from local_models import CONTEXT, byte_tokenizer, engine, network, run
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from search.api import Search
from search.config import SearchSettings
from search.engines.local import LocalEngine, loading
from search.engines.local.loading import prepare
from search.errors import ConfigError
from search.types import Child, Prefix, Sampling, Segment

PROMPT = tuple(range(40, 70))


def test_what_takes_long_to_load_is_said_before_with_its_size_and_after_with_its_time(checkpoint, monkeypatch, caplog):
    """Forty seconds of a real model's loading were silent."""
    caplog.set_level("INFO", logger="search")
    LocalEngine.load(str(checkpoint))
    assert not caplog.messages, "the mini family is there at once"
    monkeypatch.setattr(loading, "_SOON_BYTES", 1)
    LocalEngine.load(str(checkpoint), dtype="bfloat16")
    before, after = caplog.messages
    assert before == f"loading {checkpoint}, 0 MB, as bfloat16 on cpu ..." and after.startswith(
        f"loaded {checkpoint} in "
    )


def test_a_large_model_in_float32_by_nobodys_choice_is_told_what_bfloat16_would_save(checkpoint, monkeypatch, caplog):
    caplog.set_level("INFO", logger="search")
    monkeypatch.setattr(loading, "_SOON_BYTES", 1)
    model = {"policy": str(checkpoint), "prm": "none"}
    for large, chosen, hinted in ((1, {}, True), (1, {"dtype": "float32"}, False), (1 << 40, {}, False)):
        monkeypatch.setattr(loading, "_LARGE", large)
        caplog.clear()
        Search(settings=SearchSettings(**model, **chosen)).load()
        (said,) = [line for line in caplog.messages if line.startswith("loading")]
        assert said.endswith(
            " as float32 on cpu" + " (--dtype bfloat16 halves its memory and is faster)" * hinted + " ..."
        )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model = network("llama")
    model.generation_config.eos_token_id = [256, 7]
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def broken(checkpoint, tmp_path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    return folder


def refuse(model: Path | str, match: str, **settings: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        LocalEngine.load(str(model), **settings)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value) or settings


def test_a_checkpoint_loads_with_all_its_end_tokens(checkpoint):
    local = LocalEngine.load(str(checkpoint))
    assert local.tokenizer.eos_ids == {256, 7}
    assert local.info.context_tokens == CONTEXT
    assert local.info.seeds == "exact"
    assert local.info.details["attention"] == "cascade"
    run(local.aclose())
    low = LocalEngine.load(str(checkpoint), dtype="bfloat16")
    assert low.info.seeds == "none"

    async def main() -> None:
        prefix = Prefix("t", (Segment(0, PROMPT),))
        steps = [s async for s in low.generate(prefix, [Child(1, 1), Child(2, 2)], Sampling(1.0, 1.0, 5, ()))]
        assert len(steps) == 2
        await low.aclose()

    run(main())


def test_what_is_not_there(tmp_path, checkpoint):
    refuse(tmp_path / "nothing", "no such folder")
    refuse("./nothing", "no such folder")
    refuse("nobody/has-this", "not in the hub's cache")
    refuse("bad name/x y", "neither a folder nor a hub id|not in the hub's cache")
    refuse(checkpoint, "dtype", dtype="int3")
    refuse(checkpoint, "device", device="toaster")
    if not torch.cuda.is_available():
        refuse(checkpoint, "CUDA", device="cuda")


def test_missing_and_damaged_files(broken):
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    refuse(broken, "damaged or cut short")
    weights.write_bytes(b"")
    refuse(broken, "damaged or cut short")
    weights.unlink()
    refuse(broken, "no safetensors")
    weights.write_bytes(whole)
    (broken / "tokenizer.json").rename(broken / "kept")
    refuse(broken, "no tokenizer")
    (broken / "tokenizer.json").write_text("{")
    refuse(broken, "tokenizer cannot be read")
    (broken / "kept").rename(broken / "tokenizer.json")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refuse(broken, "weights lack")
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    refuse(broken, "weights cannot be loaded|lack")
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    refuse(broken, "config.json cannot be used")
    (broken / "config.json").write_text("not json")
    refuse(broken, "config.json cannot be used")
    (broken / "config.json").unlink()
    refuse(broken, "no config.json")


def test_models_that_are_no_causal_language_models(tmp_path):
    sizes = {"vocab_size": 260, "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    BertForSequenceClassification(BertConfig(**sizes, intermediate_size=16)).save_pretrained(tmp_path / "bert")
    small = {"vocab_size": 260, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**small)).save_pretrained(tmp_path / "t5")
    for name in ("bert", "t5"):
        byte_tokenizer().save_pretrained(tmp_path / name)
        refuse(tmp_path / name, "not a causal language model|without its head")


def gemma2() -> Gemma2ForCausalLM:
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=CONTEXT,
            sliding_window=8,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=2.0,
            initializer_range=0.3,
        )
    )


def windowed() -> MistralForCausalLM:
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            sliding_window=8,
            initializer_range=0.3,
        )
    )


@pytest.mark.parametrize(("make", "why"), [(gemma2, "sliding window|soft cap"), (windowed, "sliding window")])
def test_attention_that_the_cascade_is_not_runs_dense_and_exact(make, why):
    torch.manual_seed(0)
    model = make().eval()
    torch.manual_seed(0)
    plain = make().eval()
    plain.set_attn_implementation("eager")
    with pytest.warns(RuntimeWarning, match=why):
        loaded = prepare(model, byte_tokenizer(), name="windowed")
    local = LocalEngine(loaded)
    assert local.info.details["attention"] == "dense"

    async def main() -> None:
        sampling = Sampling(temperature=0.0, max_new_tokens=9, stop=())
        root = Segment(0, PROMPT)
        steps = {s.key: s async for s in local.generate(Prefix("t", (root,)), [Child(1, 1), Child(2, 1)], sampling)}
        assert steps[1].ids == steps[2].ids
        await local.release("t", [2])
        path = Prefix("t", (root, Segment(1, steps[1].ids)))
        below = {s.key: s async for s in local.generate(path, [Child(3, 1), Child(4, 1)], sampling)}
        written = steps[1].ids + below[3].ids
        with torch.inference_mode():
            for number, token in enumerate(written):
                logits = plain(input_ids=torch.tensor([[*PROMPT, *written[:number]]]), use_cache=False).logits
                assert int(logits[0, -1].argmax()) == token
            found = await local.label_logprobs(Prefix("t", (*path.segments, Segment(9, (5, 6, 7)))), [1, 2])
            logits = plain(input_ids=torch.tensor([[*path.ids, 5, 6, 7]]), use_cache=False).logits
            wanted = torch.log_softmax(logits[0, -1].double(), -1)[[1, 2]].tolist()
        assert found == pytest.approx(wanted, abs=1e-4)
        await local.aclose()

    run(main())


def test_a_model_that_keeps_no_cache_of_keys_is_refused_by_name():
    mamba = MambaForCausalLM(MambaConfig(vocab_size=260, hidden_size=16, state_size=4, num_hidden_layers=1)).eval()
    with pytest.raises(ConfigError, match="MambaForCausalLM is not supported"):
        prepare(mamba, byte_tokenizer(), name="mamba")


def test_attention_with_a_bias_of_its_own_is_not_taken_for_plain():
    """Bloom adds ALiBi inside its layers; either the check refuses the cascade, or nothing is loaded."""
    torch.manual_seed(0)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=260, hidden_size=32, n_layer=2, n_head=4)).eval()
    try:
        with pytest.warns(RuntimeWarning, match="Bloom"):
            loaded = prepare(bloom, byte_tokenizer(), name="bloom")
    except ConfigError as error:
        assert "Bloom" in str(error)
    else:
        assert loaded.forward.name == "dense"


@pytest.mark.filterwarnings("default")
def test_on_the_command_line_a_warning_is_one_line_without_a_path(inside, tmp_path):
    windowed().save_pretrained(tmp_path / "windowed")
    byte_tokenizer().save_pretrained(tmp_path / "windowed")
    ran = inside("doctor", "--policy", "windowed", "--prm", "none")
    assert ran.code == 0, ran.out
    (line,) = ran.err.splitlines()
    assert line.startswith("ets: MistralForCausalLM: layer 0 has a sliding window of 8 tokens")


def test_importing_the_engine_does_not_import_torch():
    code = "import sys, search.engines.local; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_pool_says_what_it_holds():
    local = engine("llama", max_kv_tokens=500)

    async def main() -> None:
        await local.label_logprobs(Prefix("t", (Segment(0, PROMPT),)), [0])
        pool = local.pool()
        assert (pool.held, pool.peak, pool.capacity) == (len(PROMPT), len(PROMPT), 500)
        await local.aclose()

    run(main())
