"""Golden ids and read positions of every family of reward models, on tokenizers built here."""

import math

import pytest
from prm_checkpoints import QUESTION, STEPS, byte_tokenizer, sentencepiece_tokenizer, tree_of, wrapped

from prm.checkpoint import PrmConfig
from prm.label_tokens import LabelTokenCodec
from prm.math_shepherd import MathShepherdCodec
from prm.qwen_math import SYSTEM_PROMPT, QwenMathPrmCodec
from prm.reasonflux import ReasonFluxCodec
from prm.reward_head import RewardHeadCodec
from prm.rlhflow import RlhflowCodec
from prm.skywork import SkyworkCodec
from prm.trl import TrlCodec
from prm.versa import VersaCodec
from search.errors import ConfigError, ScoringError


def segments(codec, *tree):
    made, leaf = tree or tree_of()
    return [codec.prompt_ids(made), *(codec.step_ids(made, node) for node in made.path(leaf)[1:])]


def joined(parts):
    return [token for part in parts for token in part]


def text_ids(text):
    return list(text.encode())


def test_math_shepherd_ids_are_the_model_cards_and_each_segment_ends_with_the_tag():
    raw = sentencepiece_tokenizer()
    tokenizer = wrapped(raw)
    codec = MathShepherdCodec(tokenizer, PrmConfig(bos_token="<s>"))
    vocab = raw.get_vocab()
    assert codec.labels == (vocab["▁+"], vocab["▁-"]) == tokenizer.encode("+ -")
    parts = segments(codec)
    whole = f"{QUESTION} Step 1: {STEPS[0]} ки\nStep 2: {STEPS[1]} ки\nStep 3: {STEPS[2]} ки"
    assert joined(parts) == [raw.bos_token_id, *tokenizer.encode(whole)]
    assert [part[-1] for part in parts[1:]] == [vocab["▁ки"]] * 3
    assert parts[2][:2] == (vocab["\n"], vocab["Step"]), "no space of the tokenizer's own between the steps"


def test_math_shepherd_leaves_numbered_steps_and_refuses_a_tokenizer_that_splits_the_tag():
    codec = MathShepherdCodec(wrapped(sentencepiece_tokenizer()), PrmConfig())
    tree, leaf = tree_of(("Step 1: She has 7.",))
    assert codec.tokenizer.decode(codec.step_ids(tree, tree[leaf])).count("Step") == 1
    tagged, end = tree_of(("Step 1: She has 7. ки",))
    assert codec.step_ids(tagged, tagged[end]) == codec.step_ids(tree, tree[leaf]), (
        "the policy's own tag is no second one"
    )
    with pytest.raises(ConfigError, match="step tag 'ки' is not one token"):
        MathShepherdCodec(wrapped(byte_tokenizer("plain")), PrmConfig())


def test_rlhflow_ids_are_those_of_the_whole_conversation_read_where_the_answer_begins():
    raw = byte_tokenizer("llama", "<|begin_of_text|>")
    codec = RlhflowCodec(wrapped(raw), PrmConfig())
    assert codec.labels == (ord("+"), ord("-"))
    parts = segments(codec)
    turns = []
    for number, step in enumerate(STEPS):
        turns += [{"role": "user", "content": f"{QUESTION} {step}" if number == 0 else step}]
        turns += [{"role": "assistant", "content": "+"}]
        ids = raw.encode(raw.apply_chat_template(turns, tokenize=False), add_special_tokens=False)
        # The reference reads 3 from the end: before '+' and the end of the turn.
        assert joined(parts[: number + 2]) == ids[:-2]
        assert ids[-2:] == [ord("+"), 257]
    assert parts[0][0] == 256 and bytes(parts[0][-4:]) == b"any?"
    assert parts[2][:2] == (ord("+"), 257) and bytes(parts[2][-2:]) == b"\n\n"


def test_rlhflow_needs_a_template_that_leaves_earlier_turns_alone():
    with pytest.raises(ConfigError, match="no chat template"):
        RlhflowCodec(wrapped(byte_tokenizer("plain")), PrmConfig())
    raw = byte_tokenizer("llama")
    raw.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}"
    with pytest.raises(ConfigError, match="changes earlier turns"):
        RlhflowCodec(wrapped(raw), PrmConfig())


def test_qwen_math_ids_are_the_model_cards_and_each_segment_ends_with_extra_0():
    raw = byte_tokenizer("qwen")
    codec = QwenMathPrmCodec(wrapped(raw), PrmConfig())
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"},
    ]
    ids = raw.encode(raw.apply_chat_template(messages, tokenize=False), add_special_tokens=False)
    parts = segments(codec)
    assert joined(parts) == ids[:-2] and ids[-2:] == [258, ord("\n")]
    assert [part[-1] for part in parts[1:]] == [259] * 3 and joined(parts).count(259) == 3
    assert parts[1] == (*text_ids(STEPS[0]), 259)
    assert codec.reward((0.0, 2.0)) == pytest.approx(1 / (1 + math.exp(-2)))


def test_reasonflux_ids_are_its_readmes_which_gives_no_system_prompt():
    raw = byte_tokenizer("qwen")
    codec = ReasonFluxCodec(wrapped(raw), PrmConfig())
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"},
    ]
    ids = raw.encode(raw.apply_chat_template(messages, tokenize=False), add_special_tokens=False)
    parts = segments(codec)
    assert joined(parts) == ids[:-2] and [part[-1] for part in parts[1:]] == [259] * 3
    assert codec.reward((0.0, 2.0)) == pytest.approx(1 / (1 + math.exp(-2)))
    with pytest.raises(ConfigError, match="codec reasonflux: the tokenizer has no chat template"):
        ReasonFluxCodec(wrapped(without_template(raw)), PrmConfig())


def without_template(raw):
    raw.chat_template = None
    return raw


def test_versaprm_ids_are_the_cards_and_each_segment_ends_with_the_token_of_blank_lines():
    raw = byte_tokenizer("blank lines", "<|begin_of_text|>")
    codec = VersaCodec(wrapped(raw), PrmConfig(bos_token="<|begin_of_text|>"))
    assert codec.labels == (ord("+"), ord("-"))
    parts = segments(codec)
    whole = QUESTION + " \n\n" + "".join(f"{step} \n\n\n\n" for step in STEPS)
    assert joined(parts) == [256, *raw.encode(whole, add_special_tokens=False)]
    (tag,) = raw.encode(" \n\n\n\n", add_special_tokens=False)
    assert [part[-1] for part in parts[1:]] == [tag] * 3 and joined(parts).count(tag) == 3
    with pytest.raises(ConfigError, match="is not one token for this tokenizer; VersaPRM is read at it"):
        VersaCodec(wrapped(byte_tokenizer("llama")), PrmConfig())


def test_pure_prm_is_read_where_its_authors_script_reads_it():
    """Its script for ProcessBench: question, then each step and a line break, with no special token anywhere."""
    raw = byte_tokenizer("qwen")
    codec = TrlCodec(wrapped(raw), PrmConfig())
    ids, places = text_ids(QUESTION), []
    for step in STEPS:
        ids += text_ids(step + "\n")
        places.append(len(ids) - 1)
    parts = segments(codec)
    assert joined(parts) == ids
    assert [sum(map(len, parts[: number + 2])) - 1 for number in range(len(STEPS))] == places
    for bad, good in ((0.0, 2.0), (1.0, -1.0)):
        theirs = (math.exp(good) - math.exp(bad)) / (math.exp(good) + math.exp(bad))
        assert 2 * codec.reward((bad, good)) - 1 == pytest.approx(theirs)


def test_qwen_math_refuses_a_tokenizer_that_splits_extra_0():
    with pytest.raises(ConfigError, match="step token '<extra_0>' is 9 tokens"):
        QwenMathPrmCodec(wrapped(byte_tokenizer("llama")), PrmConfig())


def test_skywork_ids_are_the_references_and_each_segment_ends_with_the_line_break():
    codec = SkyworkCodec(wrapped(byte_tokenizer("qwen")), PrmConfig(bos_token="<|im_start|>"))
    # The reference's prepare_input: start token + question + line break, then each line and a line break.
    ids = [257, *text_ids(QUESTION + "\n")]
    for line in "\n".join(STEPS).split("\n"):
        ids += [*text_ids(line), ord("\n")]
    parts = segments(codec)
    assert joined(parts) == ids
    assert [part[-1] for part in parts[1:]] == [ord("\n")] * 3
    assert codec.reward((0.5,)) == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_a_reward_head_reads_the_last_token_of_each_step_with_and_without_a_chat_template():
    chat = RewardHeadCodec(wrapped(byte_tokenizer("qwen")), PrmConfig())
    parts = segments(chat)
    assert bytes(parts[0][-10:]) == b"assistant\n" and bytes(parts[1]) == STEPS[0].encode()
    plain = RewardHeadCodec(wrapped(byte_tokenizer("plain")), PrmConfig())
    assert bytes(joined(segments(plain))).decode() == "\n\n".join((QUESTION, *STEPS))
    with pytest.raises(ScoringError, match="has 3 outputs"):
        plain.reward((0.0, 1.0, 2.0))


def test_trl_ids_are_the_trainers_own_and_each_segment_ends_with_the_separator():
    """Taken for an ordinary head, such a model was asked through its chat template and read before the separator."""
    raw = byte_tokenizer("qwen", "<|endoftext|>")
    for tag, separator in (("", "\n"), ("\n\n", "\n\n"), ("<extra_0>", "<extra_0>")):
        config = PrmConfig(bos_token="<|endoftext|>", step_tag=tag)
        codec = TrlCodec(wrapped(raw), config)
        # What the trainer packs: the start token, the prompt, then every completion with the separator's ids after it.
        ends = raw.encode(separator, add_special_tokens=False)
        packed = [raw.bos_token_id, *raw.encode(QUESTION, add_special_tokens=False)]
        for step in STEPS:
            packed += [*raw.encode(step, add_special_tokens=False), *ends]
        parts = segments(codec)
        assert joined(parts) == packed
        assert all(list(part[-len(ends) :]) == ends for part in parts[1:])
    assert codec.reward((0.0, 2.0)) == pytest.approx(1 / (1 + math.exp(-2)))


def test_label_tokens_by_chat_end_each_step_with_what_was_trained():
    codec = LabelTokenCodec(
        wrapped(byte_tokenizer("qwen")), PrmConfig(shares_ids=False, prompt="chat", step_end="\n\n")
    )
    parts = segments(codec)
    assert bytes(parts[0][-10:]) == b"assistant\n"
    assert bytes(joined(parts[1:])).decode() == "".join(f"{step}\n\n" for step in STEPS)
    plain = LabelTokenCodec(wrapped(byte_tokenizer("plain")), PrmConfig(shares_ids=False, step_end="\n\n"))
    assert bytes(joined(segments(plain))).decode() == "".join(f"{part}\n\n" for part in (QUESTION, *STEPS))
    with pytest.raises(ConfigError, match="no chat template"):
        LabelTokenCodec(wrapped(byte_tokenizer("plain")), PrmConfig(prompt="chat"))


@pytest.mark.parametrize("codec", [MathShepherdCodec, RlhflowCodec])
def test_label_tokens_that_the_tokenizer_splits_are_refused(codec):
    with pytest.raises(ConfigError, match="label token 'good' is 4 tokens for this tokenizer"):
        codec(wrapped(byte_tokenizer("llama")), PrmConfig(good_token="good"))


@pytest.mark.parametrize("outputs", [(math.nan,), (math.nan, 1.0)])
def test_no_number_is_no_reward(outputs):
    assert math.isnan(RewardHeadCodec(wrapped(byte_tokenizer("plain")), PrmConfig()).reward(outputs))
