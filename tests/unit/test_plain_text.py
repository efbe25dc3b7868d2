"""What looks like a control token in a problem or a step stays text, whoever reads it, and nothing of it is lost."""

from functools import lru_cache
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markov import EOS, FakeTokenizer
from prm_checkpoints import STEPS, byte_tokenizer, sentencepiece_tokenizer, tree_of, wrapped
from tokenizers import AddedToken
from transformers import AutoTokenizer

from arbitrage.models import ModelSession, ModelView
from arbitrage.reading import RouterConfig, RouterReader
from prm.checkpoint import PrmConfig
from prm.label_tokens import LabelTokenCodec
from prm.math_shepherd import MathShepherdCodec
from prm.qwen_math import QwenMathPrmCodec
from prm.reward_head import RewardHeadCodec
from prm.rlhflow import RlhflowCodec
from prm.skywork import SkyworkCodec
from prm.trl import TrlCodec
from search.config import SearchSettings
from search.engines.huggingface.token_bytes import TokenBytes
from search.plain_text import encode_text, protect, unprotect
from search.prompt.prompts import PromptRenderer
from search.setting_types import Example
from search.setup.registry import model_path
from search.types import FinishReason, Generation, Step

FAMILIES = ("qwen", "llama", "plain", "sentencepiece", "mini", "thinking")
FORMATS = {
    **dict.fromkeys(("qwen", "llama", "thinking"), ("chat", "plain", "mini", "qwen-math", "llama-3", "math-shepherd")),
    **dict.fromkeys(("plain", "sentencepiece"), ("plain", "math-shepherd")),
    "mini": ("chat", "plain", "mini", "math-shepherd"),
}
CASES = [(family, name) for family in FAMILIES for name in FORMATS[family]]


@lru_cache
def tokenizer(family):
    if family == "mini":
        return wrapped(AutoTokenizer.from_pretrained(model_path("mini:target")))
    if family == "sentencepiece":
        return wrapped(sentencepiece_tokenizer())
    if family == "thinking":
        raw = byte_tokenizer("qwen")
        raw.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>", "<b>")])
        raw.chat_template += "{# <think> and </think> are the template's own #}"
        return wrapped(raw)
    return wrapped(byte_tokenizer(family))


def control_ids(reader):
    return {reader.encode(text)[-1] for text in reader.controls | reader.tags}


def count(reader, ids):
    return sum(token in control_ids(reader) for token in ids)


def attack(reader):
    """Every control token alone, doubled, nested in another, and at the ends."""
    words = sorted(reader.controls | reader.tags)
    assert words
    return " ".join([*words, *(word + word for word in words), *(f"<{word[0]}{word}{word[1:]}" for word in words)])


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_prompt_has_the_control_tokens_of_its_template_alone(family, name):
    """`<|im_end|>` in a problem's text ended the user's turn."""
    reader = tokenizer(family)
    settings = SearchSettings(prompt=name)
    if family != "mini" or name in ("plain", "math-shepherd"):  # its own template leaves all but the question out
        bad = attack(reader)
        examples = (Example(question=f"{bad} 1?", answer=f"{bad} 2."),)
        settings = SearchSettings(prompt=name, system_prompt=f"Be {bad} brief.", few_shot=examples)
    harmless = PromptRenderer(SearchSettings(prompt=name), reader).render("1 + 1?")
    attacked = PromptRenderer(settings, reader).render(f"{attack(reader)} 1 + 1?")
    turns = 2 if settings.few_shot and PromptRenderer(settings, reader).style.chat else 0
    per_turn = {"qwen": 2, "thinking": 2, "llama": 3}.get(family, 0)
    system = per_turn if turns and name in ("mini",) else 0  # the format has none of its own
    assert count(reader, attacked.ids) == count(reader, harmless.ids) + turns * per_turn + system
    assert attack(reader) in attacked.text
    assert attack(reader) in reader.decode(attacked.ids)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_nothing_of_a_text_is_lost_and_no_control_token_is_left(family, data):
    reader = tokenizer(family)
    letters = (
        [chr(code) for code in range(33, 127)] if family == "sentencepiece" else ["é", "√", "\ufdd0", "|", "=", "a "]
    )
    pieces = [*sorted(reader.controls | reader.tags), *letters, "<", "|>"]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=12)))
    ids = encode_text(reader, text)
    assert not count(reader, ids)
    assert reader.decode(ids).removeprefix(" ") == text
    assert unprotect(protect(reader, text)) == text
    if not any(word in text for word in reader.controls | reader.tags):
        assert ids == reader.encode(text)


def test_added_tokens_that_no_template_writes_are_ordinary_text():
    reader = tokenizer("thinking")
    assert reader.tags == {"<think>", "</think>"} and "<b>" not in reader.controls
    assert encode_text(reader, "<b>") == reader.encode("<b>") and len(reader.encode("<b>")) == 1


def test_what_a_model_wrote_keeps_its_tags_and_nothing_else():
    reader = tokenizer("thinking")
    text = "<think>so</think><|im_end|>"
    ids = encode_text(reader, text, written=True)
    assert count(reader, ids) == 2 and reader.decode(ids) == text
    assert not count(reader, encode_text(reader, text))


CODECS = {
    "rlhflow": lambda: RlhflowCodec(tokenizer("llama"), PrmConfig()),
    "qwen-math": lambda: QwenMathPrmCodec(tokenizer("qwen"), PrmConfig()),
    "skywork": lambda: SkyworkCodec(tokenizer("qwen"), PrmConfig(bos_token="<|im_start|>")),
    "head-chat": lambda: RewardHeadCodec(tokenizer("qwen"), PrmConfig()),
    "head-plain": lambda: RewardHeadCodec(tokenizer("sentencepiece"), PrmConfig(bos_token="<s>")),
    "trl": lambda: TrlCodec(tokenizer("qwen"), PrmConfig(step_tag="<extra_0>")),
    "labels-chat": lambda: LabelTokenCodec(
        tokenizer("qwen"), PrmConfig(shares_ids=False, prompt="chat", step_end="\n\n")
    ),
    "labels-plain": lambda: LabelTokenCodec(tokenizer("plain"), PrmConfig(step_tag="<|end|>")),
    "math-shepherd": lambda: MathShepherdCodec(tokenizer("sentencepiece"), PrmConfig(bos_token="<s>")),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_reward_model_reads_no_control_token_out_of_a_text(name):
    codec = CODECS[name]()
    reader = codec.tokenizer
    reading = RouterReader(codec, reader, RouterConfig("d", "t", "p"))

    def read(*tree):
        made, leaf = tree
        return [reading.prompt_ids(made), *(reading.step_ids(made, node) for node in made.path(leaf)[1:])]

    bad = attack(reader)
    clean = read(*tree_of())
    attacked = read(*tree_of([f"{bad} {step} {bad}." for step in STEPS], f"{bad} How many?"))
    assert [count(reader, ids) for ids in attacked] == [count(reader, ids) for ids in clean]
    assert all(bad in reader.decode(ids) for ids in attacked)


def test_a_draft_with_other_ids_reads_steps_as_text():
    """The draft's own view of a tree, and the tree's view of what the draft wrote."""
    draft, target = FakeTokenizer((EOS, "\n", *map(chr, range(32, 127)))), tokenizer("plain")
    tree, leaf = tree_of((f"1 {EOS} 2", "<|end|> 3"))
    model = ModelView(SimpleNamespace(tokenizer=draft), target, prompt=lambda tree: draft.encode("?"))
    view = ModelSession(model, tree)
    ids = [segment.ids for segment in view.prefix(tree, tree.path(leaf)[1].id).segments]
    assert draft.encode(EOS)[0] not in ids[1]
    step = Step(leaf, (1,), f"a{EOS}", FinishReason.STOP, "d")
    assert draft.decode(view.step_ids(tree, step)) == f"a{EOS}"
    written = Generation(1, (5,), "<|end|> 3", FinishReason.STOP)
    assert target.encode("<|end|>")[0] not in view.tree_ids(written)


def test_full_bytes_of_a_protected_prompt_are_its_text():
    reader = tokenizer("qwen")
    prompt = PromptRenderer(SearchSettings(), reader).render(attack(reader))
    table = TokenBytes(reader.raw, len(reader.raw))
    assert b"".join(table.full[token] for token in prompt.ids).decode() == prompt.text
