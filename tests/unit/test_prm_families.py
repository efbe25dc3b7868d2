"""Every family's tiny random checkpoint in its published layout: recognised, loaded, scored as transformers does."""

import asyncio
import json

import pytest
import torch
from prm_checkpoints import FAMILIES, byte_tokenizer, classifier, headed_model, label_model, tree_of

from prm import PrmScorer, codec_of, detect_prm
from search.engines.local import LocalEngine
from search.errors import ConfigError, EngineError
from search.types import ROOT, FinishReason, Prefix, Segment, Step


def run(work):
    return asyncio.run(work)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Each family's checkpoint and reference, made once."""
    made = {}

    def build(case):
        if case not in made:
            builder, argument, codec = FAMILIES[case]
            folder = tmp_path_factory.mktemp("prm") / f"Someone-{case}-prm"
            folder.mkdir()
            made[case] = (folder, builder(folder, argument), codec)
        return made[case]

    return build


def scorer_of(folder):
    engine = LocalEngine.load(str(folder))
    config = detect_prm(str(folder), folder)
    codec = codec_of(config, engine.tokenizer)
    return PrmScorer(engine, codec)


@pytest.mark.parametrize("case", FAMILIES)
def test_incremental_scores_equal_scores_from_nothing_and_transformers(built, case):
    folder, reference, family = built(case)
    scorer = scorer_of(folder)
    codec = scorer.codec
    assert codec.name == family
    tree, leaf = tree_of()
    sibling = tree.add_child(tree[leaf].parent)
    tree.write(Step(sibling, (8,), "The answer is 8.\n\n", FinishReason.STOP, "w"))

    async def score():
        steps = []
        async with scorer.open(tree) as session:
            for node in tree.path(leaf)[1:]:
                steps += await session.score(tree, [node.id])
            steps += await session.score(tree, [sibling])
            computed, unique = session.usage()["prm"].computed_tokens, session.num_unique_tokens()
        other, end = tree_of(name="fresh#0")
        async with PrmScorer(scorer.engine, codec).open(other) as session:
            (last,) = await session.score(other, [end])
        await scorer.engine.aclose()
        return steps, computed, unique, last

    steps, computed, unique, last = run(score())
    assert computed == unique, "each token of the tree is computed once"
    assert last == pytest.approx(steps[2], abs=1e-5)
    wanted = []
    for node in [*tree.path(leaf)[1:], tree[sibling]]:
        path = tree.path(node.id)
        ids = [*codec.prompt_ids(tree), *(token for one in path[1:] for token in codec.step_ids(tree, one))]
        with torch.inference_mode():
            outputs = reference(torch.tensor([ids]))[-1].double()
        if codec.reads == "labels":
            outputs = torch.log_softmax(outputs, -1)[list(codec.labels)].flip(0)
        wanted.append(torch.softmax(outputs, -1)[1] if len(outputs) == 2 else torch.sigmoid(outputs[0]))
    assert steps == pytest.approx([float(one) for one in wanted], abs=1e-5)
    assert len({*steps}) == 4


@pytest.mark.parametrize("case", FAMILIES)
def test_auto_recognises_the_family_and_says_why(built, case):
    folder, _, family = built(case)
    config = detect_prm(str(folder), folder)
    assert config.codec == family
    evidence = {
        "math-shepherd": "by its name", "rlhflow": "by its name", "qwen-math-prm": "<extra_0>",
        "versaprm": "by its name", "reasonflux": "by its name",
        "skywork-o1": "v_head.summary.weight", "reward-head": "score.weight", "trl": "PRMTrainer",
    }[family]  # fmt: skip
    assert evidence in config.reason
    assert detect_prm(str(folder), folder, family).reason == "it was asked for"


def test_hidden_states_are_the_final_norms_output(built):
    folder, _, _ = built("rlhflow")
    engine = LocalEngine.load(str(folder))
    ids = tuple(range(40, 60))

    async def read():
        whole = await engine.read(Prefix("a", (Segment(0, ids),)), "hidden")
        await engine.read(Prefix("b", (Segment(0, ids[:7]),)), "hidden")
        parts = await engine.read(Prefix("b", (Segment(0, ids[:7]), Segment(1, ids[7:]))), "hidden")
        assert engine.usage("b").computed_tokens == len(ids)
        with pytest.raises(EngineError, match="no reward head"):
            await engine.read(Prefix("a", (Segment(0, ids),)), "head")
        await engine.aclose()
        return whole, parts

    whole, parts = run(read())
    from transformers import AutoModel

    with torch.inference_mode():
        wanted = AutoModel.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).last_hidden_state[0, -1]
    assert whole == pytest.approx(wanted.tolist(), abs=1e-5) and parts == pytest.approx(whole, abs=1e-5)


def test_a_headed_checkpoint_writes_no_text(built):
    folder, _, _ = built("qwen-math-prm")
    engine = LocalEngine.load(str(folder))
    assert engine.info.details["head"] == "2 outputs"
    # Its auto_map names a module that is not there: with or without trust, none of its code is needed.
    assert LocalEngine.load(str(folder), trust_remote_code=True).info == engine.info

    async def ask():
        with pytest.raises(EngineError, match="no language-model head"):
            await engine.label_logprobs(Prefix("a", (Segment(0, (1, 2)),)), [0])
        await engine.aclose()

    run(ask())


def test_what_is_no_reward_model_is_refused_by_name(tmp_path):
    label_model(tmp_path, "rlhflow")
    with pytest.raises(ConfigError, match="no reward model that can be recognised: a LlamaForCausalLM"):
        detect_prm("./some-model", tmp_path)
    with pytest.raises(ConfigError, match=r"reads a reward head and '\./some-model' has none"):
        detect_prm("./some-model", tmp_path, "skywork-o1")
    assert detect_prm("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", tmp_path).codec == "rlhflow"
    with pytest.raises(ConfigError, match="no reward model that can be recognised"):
        detect_prm("RLHFlow/LLaMA3-SFT", tmp_path)
    with pytest.raises(ConfigError, match="unknown reward model codec 'oracle'; known: auto, label-tokens"):
        detect_prm("./some-model", tmp_path, "oracle")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("PRIME-RL/EurusPRM-Stage2", "it is implicit, its reward being how much likelier it finds each token than"),
        ("models/eurusprm-stage1", "one checkpoint alone gives none"),
        ("Gen-Verse/ReasonFlux-PRM-1.5B", r"a pickle beside the weights \(reward_head.pt\)"),
        ("Gen-Verse/ReasonFlux-PRM-Qwen-2.5-7B", "it is a policy"),
        ("UW-Madison-Lee-Lab/Qwen-PRM800K", "no public text says at which token"),
    ],
)
def test_a_published_model_that_cannot_be_read_is_refused_with_the_reason(tmp_path, name, why):
    label_model(tmp_path, "rlhflow")
    with pytest.raises(ConfigError, match=rf"'{name}' is not read here: .*{why}") as refused:
        detect_prm(name, tmp_path)
    assert "\n" not in str(refused.value)
    assert detect_prm(name, tmp_path, "rlhflow").reason == "it was asked for"


def test_a_head_and_label_tokens_exclude_each_other(tmp_path):
    headed_model(tmp_path, "qwen-math-prm")
    with pytest.raises(ConfigError, match="reads label tokens and 'x' has a reward head"):
        detect_prm("x", tmp_path, "label-tokens")
    with pytest.raises(ConfigError, match="reads 1 outputs and the reward head of 'x' has 2"):
        detect_prm("x", tmp_path, "skywork-o1")


def test_a_missing_head_is_named(tmp_path):
    classifier(tmp_path, "llama")
    label_model(tmp_path / "other", "rlhflow")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    for refusal in (lambda: detect_prm("x", tmp_path), lambda: LocalEngine.load(str(tmp_path))):
        with pytest.raises(ConfigError, match="LlamaForSequenceClassification without its head: no score"):
            refusal()


def test_a_head_of_another_layout_is_refused(tmp_path):
    headed_model(tmp_path, "skywork-o1")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    tensors["v_head.extra.weight"] = torch.zeros(1, 1)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"of no known layout; known: score, score\.0 and score\.2, v_head\.summary"):
        LocalEngine.load(str(tmp_path))


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_truncated_file_is_one_clear_error(tmp_path, keep):
    headed_model(tmp_path, "skywork-o1")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    for refusal in (lambda: detect_prm("x", tmp_path), lambda: LocalEngine.load(str(tmp_path))):
        with pytest.raises(ConfigError, match=r"model\.safetensors is damaged or cut short"):
            refusal()


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tmp_path):
    byte_tokenizer("qwen").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForPrmModel"], "model_type": "qwen2"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no safetensors weights in .*convert it once.*weights_only=True"):
        detect_prm("x", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"codec": "oracle"}', "unknown codec 'oracle'"),
        ('{"good": "+"}', "unknown key 'good'; known: codec, good_token"),
        ('{"reduce_in_search": "first"}', "reduce_in_search = 'first' is not accepted"),
        ("[1]", "must hold an object"),
        ("{", "cannot be read"),
    ],
)
def test_a_broken_prm_config_is_one_clear_error(tmp_path, content, message):
    label_model(tmp_path, "rlhflow")
    (tmp_path / "prm_config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        detect_prm("x", tmp_path)


def test_scores_of_a_root_alone_are_asked_of_nobody(built):
    """The family's prompt is at least one token long, so that a path has something to hang below."""
    for case in FAMILIES:
        folder, _, _ = built(case)
        tree, _ = tree_of()
        engine = LocalEngine.load(str(folder))
        config = detect_prm(str(folder), folder)
        codec = codec_of(config, engine.tokenizer, engine.tokenizer)
        assert codec.prompt_ids(tree) and tree[ROOT].ids
        run(engine.aclose())
