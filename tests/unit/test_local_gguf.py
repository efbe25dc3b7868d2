"""A .gguf file is the model that its weights are: the same tokens as from safetensors, and one line where it is not."""

import subprocess
import sys

import gguf_files
import pytest
from gguf_files import CONTROL, TOKENS, Kind, write_folder, write_gguf
from local_models import run

from prm.checkpoint import read_checkpoint
from search.checkpoints.hub import find_model
from search.engines.local import LocalEngine
from search.engines.remote.model import read_model
from search.errors import ConfigError
from search.types import Child, Prefix, Sampling, Segment

TEXT = "the cat 12 é<|im_start|> \n\n3 the"
CHAT = [{"role": "user", "content": "1 + 1"}]


def refuse(path, match):
    with pytest.raises(ConfigError, match=match) as caught:
        LocalEngine.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", gguf_files.network("llama"))


async def written(local):
    prefix = Prefix("t", (Segment(0, local.tokenizer.encode(TEXT)),))
    steps = []
    for sampling in (Sampling(0.0, 1.0, 20, ()), Sampling(1.0, 1.0, 20, ())):
        found = {s.key: s.ids async for s in local.generate(prefix, [Child(i, i) for i in range(1, 5)], sampling)}
        steps.append([found[i] for i in range(1, 5)])
        await local.release("t", None)
    logprobs = await local.label_logprobs(prefix, [1, 2, 3])
    await local.aclose()
    return steps, logprobs


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("weights", [Kind.F32, Kind.Q8_0, Kind.Q4_1])
def test_token_for_token_as_the_same_weights_in_safetensors(kind, weights, tmp_path, capfd):
    model = gguf_files.network(kind)
    path = write_gguf(tmp_path / "tiny.gguf", model, weights)
    folder = write_folder(tmp_path / "folder", model)
    capfd.readouterr()
    ours = LocalEngine.load(str(path))
    assert capfd.readouterr() == ("", "")
    theirs = LocalEngine.load(str(folder))
    assert ours.info.details["quantization"] == weights.name
    assert ours.info.details["file_size"] == f"{path.stat().st_size / 1e6:.1f} MB"
    assert ours.info.details["attention"] == "cascade"
    for text in (TEXT, "1234 and the\n\n\nend ", "<|im_end|>"):
        assert ours.tokenizer.encode(text) == theirs.tokenizer.encode(text)
        assert ours.tokenizer.decode(ours.tokenizer.encode(text)) == theirs.tokenizer.decode(
            theirs.tokenizer.encode(text)
        )
    assert ours.tokenizer.chat(CHAT) == theirs.tokenizer.chat(CHAT) is not None
    assert ours.tokenizer.start == theirs.tokenizer.start == ""
    assert run(written(ours)) == run(written(theirs))


def test_end_tokens_are_those_that_the_file_names_and_those_that_end_a_turn(file):
    ends = {TOKENS.index("<|im_end|>"), TOKENS.index("<|endoftext|>")}
    local = LocalEngine.load(str(file))
    assert local.tokenizer.eos_ids == ends
    run(local.aclose())
    assert read_model(str(file), "sglang").tokenizer.eos_ids == ends


def test_a_server_s_client_reads_the_tokenizer_of_a_file(file, tmp_path):
    ours = read_model(str(file), "sglang")
    theirs = read_model(str(write_folder(tmp_path / "folder", gguf_files.network("llama"))), "sglang")
    assert (ours.model_type, ours.info.context_tokens, ours.info.vocab_size) == ("llama", 160, len(TOKENS))
    assert ours.tokenizer.encode(TEXT) == theirs.tokenizer.encode(TEXT)


def test_what_lies_beside_the_file_is_not_read(tmp_path):
    model = gguf_files.network("llama")
    path = write_gguf(tmp_path / "tiny.gguf", model)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"):
        (tmp_path / name).write_text('{"eos_token_id": 7, "chat_template": "no", "tokenizer_class": "X"}')
    local = LocalEngine.load(str(path))
    assert 7 not in local.tokenizer.eos_ids
    assert "1 + 1" in local.tokenizer.chat(CHAT)
    run(local.aclose())


def test_a_folder_of_one_file_is_that_file_and_one_of_several_asks_which(file, tmp_path):
    (tmp_path / "A.gguf").symlink_to(file)
    assert find_model(str(tmp_path)) == tmp_path / "A.gguf"
    (tmp_path / "b.GGUF").symlink_to(file)
    refuse(tmp_path, r"several \.gguf files; name one: A\.gguf, b\.GGUF")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_model(str(tmp_path)) == tmp_path
    refuse(tmp_path / "c.gguf", "no such file")
    refuse(tmp_path / "model.safetensors", r"is a file; accepted: a folder, a \.gguf file")


@pytest.mark.parametrize("length", [0, 3, 4, 20, 200, 3000, -4000, -1])
def test_a_file_that_is_cut_short(file, tmp_path, length):
    whole = file.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:length])
    refuse(path, "cut short|no .gguf file")


@pytest.mark.parametrize("content", [b"\x80" * 5000, b"PK\x03\x04 an archive", b"GGUF" + b"\xff" * 5000])
def test_what_is_no_such_file(tmp_path, content):
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    refuse(path, r"no \.gguf file|GGUF version")


def test_bytes_changed_anywhere_in_the_header_never_end_in_a_traceback(file, tmp_path):
    from search.checkpoints.gguf import read_gguf

    whole = file.read_bytes()
    for at in range(4, 1500, 7):
        path = tmp_path / "hurt.gguf"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xA5]) + whole[at + 1 :])
        try:
            read_gguf("hurt", path)
        except ConfigError as error:
            assert "\n" not in str(error)


def rewritten(file, old, new):
    whole = file.read_bytes()
    assert len(old) == len(new) and old in whole
    return whole.replace(old, new)


def test_an_architecture_that_cannot_be_read(file, tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(rewritten(file, b"llama", b"llamb"))
    refuse(path, "architecture llamb cannot be read")


def test_a_quantisation_that_is_not_known(file, tmp_path):
    name = b"\x00output.weight"
    whole = bytearray(file.read_bytes())
    at = whole.index(name) + len(name) + 4 + 16
    whole[at : at + 4] = (99).to_bytes(4, "little")
    path = tmp_path / "other.gguf"
    path.write_bytes(whole)
    refuse(path, "tensor output.weight is of quantisation 99")


def test_stretched_positions_of_llama_3(tmp_path):
    model = gguf_files.network("llama3")
    path = write_gguf(tmp_path / "a.gguf", model)
    stretched, reference = run(written(LocalEngine.load(str(path)))), written_by(tmp_path, model)
    assert stretched[0] == reference[0]
    assert stretched[1] == pytest.approx(reference[1], abs=1e-5)
    plain = gguf_files.network("llama")
    plain.load_state_dict(model.state_dict())
    assert run(written(LocalEngine.load(str(write_gguf(tmp_path / "b.gguf", plain)))))[1] != pytest.approx(
        reference[1], abs=1e-3
    ), "the factors matter"


def written_by(folder, model):
    return run(written(LocalEngine.load(str(write_folder(folder / "folder", model)))))


def test_stretched_positions_that_the_loader_would_leave_out(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", gguf_files.network("llama"), llama__rope__scaling__type="yarn")
    refuse(path, r"stretched \(yarn\)")


def test_a_missing_tensor(file, tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(rewritten(file, b"blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight"))
    refuse(path, "lack model.layers.1.mlp.up_proj.weight")


def test_numbers_that_are_none(tmp_path):
    model = gguf_files.network("qwen2")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    for path in (write_gguf(tmp_path / "a.gguf", model), write_folder(tmp_path / "folder", model)):
        refuse(path, r"1 of 2048 numbers in its tensor model\.layers\.1\.mlp\.up_proj\.weight are NaN")


def test_several_chat_templates(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", gguf_files.network("llama"), tokenizer__chat_template__tools="x")
    local = LocalEngine.load(str(path))
    assert "1 + 1" in local.tokenizer.chat(CHAT), "the one without a name is the default"
    local.tokenizer.raw.chat_template = {"tools": "x", "rag": "y"}
    with pytest.raises(ConfigError, match=r"several chat templates \(tools, rag\) and none"):
        local.tokenizer.chat(CHAT)
    run(local.aclose())


def test_a_tokenizer_of_a_larger_model(tmp_path):
    model = gguf_files.network("llama")
    model.resize_token_embeddings(200)
    refuse(write_folder(tmp_path / "folder", model), f"tokenizer has {len(TOKENS)} tokens, its embeddings 200")


def test_a_reward_model_of_label_tokens_is_read_from_a_file(file, tmp_path):
    found = read_checkpoint("m", file)
    assert found.special_tokens == set(CONTROL)
    assert not found.head
    assert found.prm_config is None
    path = tmp_path / "prm.gguf"
    path.symlink_to(file)
    (tmp_path / "prm_config.json").write_text('{"codec": "label-tokens"}')
    assert read_checkpoint("m", path).prm_config == {"codec": "label-tokens"}


def test_without_the_packages_one_line_says_which(file, monkeypatch, tmp_path):
    import importlib.util

    from search.checkpoints import gguf

    monkeypatch.chdir(tmp_path)  # in the checkout the extra itself is named
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    refuse(file, r"needs gguf and accelerate: .*-m pip install 'accelerate>=.*' 'gguf>=")
    monkeypatch.undo()
    assert importlib.util.find_spec("gguf")


def test_solving_and_scoring_with_files_alone(file, inside, tmp_path):
    """The command line, from a folder of that one file: a policy and a reward model, one line of a warning, no path."""
    (tmp_path / "m.gguf").symlink_to(file)
    (tmp_path / "prm_config.json").write_text('{"codec": "label-tokens", "good_token": "+", "bad_token": "-"}')
    args = ["solve", "1 + 1", "--policy", "m.gguf", "--prm", "m.gguf", "--width", "2", "--max-depth", "2"]
    args += ["--max-step-tokens", "6", "--json"]
    command = [sys.executable, "-m", "search.cli", *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not any(word in done.stderr for word in (".py:", "Traceback", "%|", "Converting"))
    (tmp_path / "m.gguf").unlink()
    (tmp_path / "m.gguf").write_bytes(file.read_bytes()[:-100])
    ran = inside(*args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("ets: ") and ran.err.count("\n") == 1
