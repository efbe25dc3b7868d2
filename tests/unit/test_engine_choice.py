"""What `engine: auto` stands for, and that it is said."""

import pytest

from search.config import EvalSettings, build
from search.setup import engine_choice
from search.setup.resolve import record_of, settle


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.fixture
def sglang(monkeypatch):
    monkeypatch.setattr(engine_choice, "version", lambda name: {"sglang": "9.9"}[name])


def settled(**values):
    model = {} if "draft" in values else {"policy": "some/model"}
    return settle(build(EvalSettings, {"engine": "auto", "prm": "none", **model, **values}))


def test_without_a_gpu_it_is_the_local_engine(monkeypatch, sglang):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    one = settled()
    assert (one.settings.engine, one.settings.device) == ("local", "cpu")
    assert "engine auto: local on cpu; there is no CUDA device" in one.notes


def test_on_a_gpu_it_is_sglang(gpu, sglang):
    one = settled()
    assert (one.settings.engine, one.settings.device) == ("sglang", "cuda")
    assert "engine auto: sglang on cuda; SGLang 9.9 is installed" in one.notes
    assert record_of(one.settings)["engine"] == "sglang", "a run keeps what ran"


def test_a_device_that_is_named_stays(gpu, sglang):
    assert settled(device="cuda:1").settings.device == "cuda:1"
    assert settled(device="cpu").settings.engine == "local"


def test_where_sglang_is_missing_it_says_how_to_get_it(gpu):
    one = settled()
    assert (one.settings.engine, one.settings.device) == ("local", "cuda")
    assert any("pip install" in note and "sglang" in note for note in one.notes)


@pytest.mark.parametrize(
    "values",
    [
        {"prm": "some/prm"},
        {"policy": "x.GGUF"},
        {"policy": "mini:target"},
        {"writer": "arbitrage", "draft": "a/b", "target": "c/d", "router": "never"},
    ],
)
def test_sglang_is_not_chosen_where_it_would_not_do(gpu, sglang, values):
    assert settled(**values).settings.engine == "local"


def test_a_reward_model_on_a_server_takes_no_room_here(gpu, sglang):
    assert settled(prm="some/prm", prm_engine="sglang:http://127.0.0.1:1").settings.engine == "sglang"


def test_a_confidence_needs_no_second_model(gpu, sglang):
    assert settled(prm="confidence:mean-logprob").settings.engine == "sglang"
