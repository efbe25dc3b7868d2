"""Low-bit copies: what rounding does to a matrix, and copies that every engine loads."""

import json

import pytest
import torch
from local_models import byte_tokenizer, network

from search.engines.local import LocalEngine
from search.errors import ConfigError
from search.learning.low_bit import RECORD_FILE, LowBit, make_draft, packed_bytes, round_weights


@pytest.fixture
def checkpoint(tmp_path):
    network("qwen2").save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("group", [4, 5, 64])
def test_each_group_has_so_many_values_at_most_and_errs_by_half_a_step_at_most(group):
    torch.manual_seed(0)
    exact = torch.randn(6, 12)
    rounded = exact.clone()
    round_weights(rounded, 2, group)
    for before, after in zip(exact.split(group, 1), rounded.split(group, 1), strict=True):
        step = (before.amax(1) - before.amin(1)) / 3
        for row in range(6):
            assert len(after[row].unique()) <= 4
            assert (after[row] - before[row]).abs().max() <= step[row] / 2 + 1e-6
    assert rounded.amax() == pytest.approx(float(exact.amax())), "the ends of a group's range are among its values"


def test_more_bits_err_less_and_equal_weights_stay():
    exact = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    errors = []
    for bits in (1, 2, 4, 8):
        rounded = exact.clone()
        round_weights(rounded, bits, 16)
        errors.append(float((rounded - exact).norm()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 50
    constant = torch.full((2, 8), 0.3)
    round_weights(constant, 3, 4)
    assert torch.equal(constant, torch.full((2, 8), 0.3))


def test_a_copy_loads_and_has_all_but_its_linear_weights_from_the_model(checkpoint, tmp_path):
    record = make_draft(str(checkpoint), tmp_path / "draft", LowBit(3, 8, "float32"))
    kept = json.loads((tmp_path / "draft" / RECORD_FILE).read_text())
    assert kept == record and 0 < record["relative_error"] < 0.2
    before = LocalEngine.load(str(checkpoint))
    after = LocalEngine.load(str(tmp_path / "draft"))
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert record["num_parameters"] == before.info.num_parameters == after.info.num_parameters
    from safetensors.torch import load_file

    old, new = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "draft"))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all(name.endswith("proj.weight") for name in changed)
    assert sum(old[name].numel() for name in changed) == record["num_rounded"]
    packed = packed_bytes(str(tmp_path / "draft"))
    assert packed == record["bytes_per_parameter"] and (3 + 32 / 8) / 8 < packed < 2
    assert packed_bytes(str(checkpoint)) is None


def test_a_folder_that_holds_something_is_left_alone(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="holds something already; give another folder"):
        make_draft(str(checkpoint), checkpoint, LowBit(3))
