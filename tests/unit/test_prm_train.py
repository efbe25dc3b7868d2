"""Training of a reward model: its data, its steps, resuming, and what it writes; on models of few weights."""

import json
from dataclasses import replace

import pytest
import torch
from prm_checkpoints import byte_tokenizer, sentencepiece_tokenizer, sizes, wrapped

from prm import PrmConfig, detect_prm
from prm.export import card, save_prm
from prm.label_tokens import LabelTokenCodec
from prm.labels import LabelledSolution
from prm.math_shepherd import MathShepherdCodec
from prm.train import STATE_FILE, TrainSettings, encode_solution, label_logits, train
from search.errors import ConfigError, DataError
from search.learning.prm import PrmTraining, train_prm

# A step of 'a's is right, one of 'b's is wrong.
SOLUTIONS = [
    LabelledSolution("What?", tuple("aaa" if right else "bbb" for right in labels), labels)
    for labels in [(True, False), (False, True, True), (True,), (False, False), (True, None, False)] * 3
]
SETTINGS = TrainSettings(num_epochs=4, batch_size=4, learning_rate=3e-3, warmup_share=0.1)


def network(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**sizes(260)))


def codec_of(**options):
    return LabelTokenCodec(wrapped(byte_tokenizer("plain")), PrmConfig(shares_ids=False, step_end="\n\n", **options))


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_ids_and_positions_are_those_that_the_scorer_reads():
    one = encode_solution(codec_of(), SOLUTIONS[1], 100)
    assert bytes(one.ids).decode() == "What?\n\nbbb\n\naaa\n\naaa\n\n"
    assert one.reads == (11, 16, 21) and one.labels == (False, True, True)
    assert encode_solution(codec_of(), SOLUTIONS[1], 17)[1:] == ((11, 16), (False, True))
    assert encode_solution(codec_of(), SOLUTIONS[1], 5) == ((), (), ())
    shepherd = MathShepherdCodec(wrapped(sentencepiece_tokenizer()), PrmConfig())
    tagged = encode_solution(shepherd, SOLUTIONS[1], 100)
    assert len({tagged.ids[read] for read in tagged.reads}) == 1


def test_it_learns_and_the_loss_falls(tmp_path):
    model = network()
    result = train(model, codec_of(), SOLUTIONS, replace(SETTINGS, num_epochs=10), tmp_path)
    assert result.losses[-1] < 0.2 < result.losses[0]
    assert (result.num_solutions, result.num_left_out) == (15, 0)


def test_accumulated_forwards_are_one_larger_batch(tmp_path):
    found = []
    for batch_size, num_accumulated in ((4, 1), (1, 4), (2, 2)):
        model = network()
        settings = replace(SETTINGS, batch_size=batch_size, num_accumulated=num_accumulated, max_steps=4)
        found.append(train(model, codec_of(), SOLUTIONS, settings, tmp_path).losses)
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-3)


def test_the_same_seed_gives_the_same_weights_and_resuming_changes_nothing(tmp_path):
    settings = replace(SETTINGS, save_every=5)
    whole = network()
    losses = train(whole, codec_of(), SOLUTIONS, settings, tmp_path).losses
    broken = network()

    def stop(event):
        if event.step == 7:
            raise KeyboardInterrupt

    folder = tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(broken, codec_of(), SOLUTIONS, settings, folder, report=stop)
    assert (folder / STATE_FILE).is_file()
    fresh = network(seed=9)
    steps = []
    again = train(fresh, codec_of(), SOLUTIONS, settings, folder, resume=True, report=lambda e: steps.append(e.step))
    assert steps[0] == 6 and again.losses == losses and torch.equal(weights(fresh), weights(whole))
    with pytest.raises(ConfigError, match="of a training with other settings"):
        train(fresh, codec_of(), SOLUTIONS, replace(settings, seed=1), folder, resume=True)
    for broken_bytes in (b"no state", b"junk", b"", (folder / STATE_FILE).read_bytes()[:-500]):
        (folder / STATE_FILE).write_bytes(broken_bytes)
        with pytest.raises(DataError, match="cannot be gone on from"):
            train(fresh, codec_of(), SOLUTIONS, settings, folder, resume=True)


def test_bfloat16_keeps_float32_weights_while_it_trains(tmp_path):
    model = network()
    result = train(model, codec_of(), SOLUTIONS, replace(SETTINGS, dtype="bfloat16", num_epochs=8), tmp_path)
    assert result.losses[-1] < result.losses[0]
    assert next(model.parameters()).dtype == torch.float32


def test_a_reward_model_is_trained_from_python(tmp_path):
    rows = [{"problem": "What is 2 + 3?", "steps": ["2 + 3 = 5.", "So 5."], "label": number - 1} for number in range(2)]
    data = tmp_path / "steps.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    settings = TrainSettings(max_steps=2, batch_size=1, learning_rate=1e-3)
    wanted = PrmTraining("mini:draft", [data], tmp_path / "prm", data, settings, reduce="prod")
    trained = train_prm(wanted, lambda event: seen.append((event.step, event.num_steps)))
    assert seen == [(1, 2), (2, 2)] and len(trained.result.losses) == 2
    assert trained.figures["num_steps"] == trained.to_dict()["figures"]["num_steps"] == 3
    found = detect_prm("x", trained.folder)
    assert (
        (found.codec, found.reduce, found.shares_ids) == (trained.codec, "prod", False) == ("label-tokens", "prod", 0)
    )
    assert not (trained.folder / STATE_FILE).exists()
    with pytest.raises(ConfigError, match="holds a training already"):
        train_prm(replace(wanted, resume=True))
    with pytest.raises(ConfigError, match="device 'tpu' is not one of cpu, cuda, cuda:N"):
        train_prm(replace(wanted, out=tmp_path / "other", device="tpu"))
    assert not (tmp_path / "other").exists()


def test_too_little_room_for_any_step(tmp_path):
    with pytest.raises(DataError, match="no labelled step fits into 3 tokens"):
        train(network(), codec_of(), SOLUTIONS, replace(SETTINGS, max_tokens=3), tmp_path)


def test_what_is_saved_is_recognised_and_says_the_same(tmp_path):
    from transformers import AutoModelForCausalLM

    model = network()
    result = train(model, codec_of(), SOLUTIONS, replace(SETTINGS, max_steps=2), tmp_path)
    config = PrmConfig("label-tokens", reduce="prod", shares_ids=False, step_end="\n\n")
    text = card(config, "base", ["x.jsonl"], SETTINGS, result, {"step_auc": 0.75, "threshold": None})
    save_prm(model, byte_tokenizer("plain"), tmp_path, config, text)
    assert {file.name for file in tmp_path.iterdir()} >= {"model.safetensors", "prm_config.json", "README.md"}
    assert not any(file.suffix == ".bin" or file.name.startswith(".") for file in tmp_path.iterdir())
    found = detect_prm("x", tmp_path)
    assert replace(found, reason="") == config and found.reason == "prm_config.json says so"
    assert "step_auc 0.75" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "prm_config.json").read_text())["reduce_in_search"] == "prod"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    one = encode_solution(codec_of(), SOLUTIONS[0], 100)
    with torch.inference_mode():
        assert torch.equal(label_logits(loaded, codec_of(), [one]), label_logits(model, codec_of(), [one]))
