import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from search.errors import ConfigError, DataError
from search.mini import fit
from search.mini.checkpoint import load_model
from search.mini.fit import TrainEvent
from search.mini.gate import GATE
from search.mini.model import MiniModel, ModelShape, initialise
from search.mini.muon import orthogonalise
from search.mini.problems import format_prompt, problem
from search.mini.recipes import RECIPES, ROLES, recipe_for
from search.mini.sample import sample
from search.mini.tokenizer import encode, vocab_size
from search.mini.train import PRM_CONFIG_FILE, STATE_FILE, train
from search.studies.mini_check import check

SCALE = 0.004
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
    "README.md",
)


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("family")
    events: list[TrainEvent] = []
    results = [train(role, out / role, scale=SCALE, report=events.append, policies=out) for role in ROLES]
    assert [result.folder for result in results] == [out / role for role in ROLES]
    assert {event.role for event in events} == {"target", "draft", "prm"}
    return out


def test_a_training_leaves_a_whole_checkpoint(family: Path) -> None:
    for role in ("target", "draft", "prm"):
        for name in FILES:
            assert (family / role / name).is_file(), name
        assert not (family / role / STATE_FILE).exists()
        assert not list((family / role).glob("*.partial"))
    config = json.loads((family / "prm" / PRM_CONFIG_FILE).read_text())
    assert (config["good_token"], config["bad_token"]) == ("+", "-")
    card = (family / "target" / "README.md").read_text()
    assert "| carry | 0.2 |" in card
    assert "CPU minutes" in card


@pytest.mark.parametrize("role", ["target", "draft", "prm"])
def test_transformers_gives_the_same_logits(family: Path, role: str) -> None:
    ids = torch.tensor([encode(format_prompt(problem("dev", 0).text))])
    theirs = AutoModelForCausalLM.from_pretrained(family / role, dtype=torch.float32).eval()
    AutoTokenizer.from_pretrained(family / role)
    with torch.inference_mode():
        difference = (theirs(ids).logits - load_model(family / role)(ids)).abs().max()
    assert float(difference) < 1e-4


def test_a_check_measures_every_figure(family: Path) -> None:
    report = check(weights=family, split="dev", num_problems=3, seeds=(0, 1))
    assert GATE.keys() <= report.figures.keys()
    assert set(report.per_seed) == {0, 1}
    json.dumps(report.to_dict())
    with pytest.raises(ConfigError):
        check(weights=family, num_problems=0)
    with pytest.raises(ConfigError, match="none/target"):
        check(weights=family / "none", num_problems=1)


class StoppedError(Exception):
    pass


@pytest.fixture
def stopping(monkeypatch) -> Callable[[], Callable[[TrainEvent], None]]:
    """Trainings keep their state after each step; what this makes stops one at its second."""
    monkeypatch.setattr(fit, "_REPORT_SECONDS", -1.0)
    monkeypatch.setattr(fit, "_SAVE_SECONDS", -1.0)

    def make() -> Callable[[TrainEvent], None]:
        events: list[TrainEvent] = []

        def report(event: TrainEvent) -> None:
            events.append(event)
            if len(events) == 2:
                raise StoppedError

        return report

    return make


def test_the_same_seed_gives_the_same_weights_also_after_a_stop(tmp_path: Path, stopping) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train("draft", whole, seed=5, scale=SCALE)
    runs = 0
    while not (halted / "model.safetensors").exists():
        with suppress(StoppedError):
            train("draft", halted, seed=5, scale=SCALE, resume=True, report=stopping())
        runs += 1
    assert runs > 3
    assert (whole / "model.safetensors").read_bytes() == (halted / "model.safetensors").read_bytes()
    before = (whole / "model.safetensors").stat().st_mtime_ns
    train("draft", whole, seed=5, scale=SCALE, resume=True)
    assert (whole / "model.safetensors").stat().st_mtime_ns == before


def test_a_state_file_of_another_training_is_refused(tmp_path: Path, stopping) -> None:
    with pytest.raises(StoppedError):
        train("draft", tmp_path, seed=1, scale=SCALE, report=stopping())
    with pytest.raises(ConfigError, match="of a training with other settings"):
        train("draft", tmp_path, seed=2, scale=SCALE, resume=True)
    (tmp_path / STATE_FILE).write_bytes(b"junk")
    with pytest.raises(DataError):
        train("draft", tmp_path, seed=1, scale=SCALE, resume=True)


def test_unknown_roles_and_scales_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train("teacher", tmp_path)
    for scale in (0.0, -1.0, 2.0):
        with pytest.raises(ConfigError):
            recipe_for("target", scale)
    assert recipe_for("prm") == RECIPES["prm"]


def test_batched_sampling_equals_the_plain_forward() -> None:
    model = MiniModel(ModelShape(vocab_size(), 2, 32, 2, 64))
    initialise(model, 0)
    prefixes = [encode(format_prompt(problem("dev", index).text)) for index in range(5)]
    found = sample(model, prefixes, 0, temperature=0.0, max_tokens=12)
    for prefix, (written,) in zip(prefixes, found, strict=True):
        ids = list(prefix)
        with torch.inference_mode():
            for token in written:
                assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
                ids.append(token)
    again = [sample(model, prefixes, 3, num_samples=4, max_tokens=5) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0][0] != again[0][0][1]


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrix = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4


def test_first_layer_heads_look_back_at_their_distance() -> None:
    model = MiniModel(ModelShape(vocab_size(), 1, 128, 4, 64))
    initialise(model, 0)
    layer = model.model.layers[0]
    half = 16
    frequencies = 10_000.0 ** (-torch.arange(half).float() / half)
    for head in range(4):
        rows = slice(head * 32, head * 32 + 32)
        query, key = layer.self_attn.q_proj.bias[rows], layer.self_attn.k_proj.bias[rows]
        q, k = torch.complex(query[:half], query[half:]), torch.complex(key[:half], key[half:])
        scores = [(q * torch.exp(1j * frequencies * d) * k.conj()).real.sum() for d in range(12)]
        assert int(torch.stack(scores).argmax()) == head + 1
