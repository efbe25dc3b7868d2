"""Tiny random reward models in the layouts of the published families, their tokenizers, and plain references."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from search.engines.huggingface.token_bytes import TokenBytes, byte_alphabet
from search.engines.huggingface.tokenizer import HFTokenizer
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step

SPECIALS = {
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"),
    "llama": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "blank lines": ("<|begin_of_text|>",),
    "plain": ("<|end|>",),
}
TEMPLATES = {
    "qwen": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "plain": None,
    "blank lines": None,
}
QUESTION = "Ann has 3 pens and buys 4. How many?"
STEPS = ("She has 3 + 4 = 7 pens.", "So 7\nin all.", "The answer is 7.")


def byte_tokenizer(kind: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """One token a byte (its id is the byte), and a family's special tokens from 256 on."""
    inner = Tokenizer(models.BPE(vocab=byte_alphabet(), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS[kind]])
    if kind == "blank lines":
        inner.add_tokens([AddedToken(text, special=False) for text in (" \n\n\n\n", " \n\n")])
    options: dict[str, Any] = {"bos_token": bos} if bos else {}
    if TEMPLATES[kind]:
        options["chat_template"] = TEMPLATES[kind]
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=SPECIALS[kind][0], **options)


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """As SentencePiece: a space before every text, words with their space, and the labels and tag of Math-Shepherd."""
    characters = [chr(code) for code in range(33, 127)]
    words = ["▁ки", "▁+", "▁-", "▁Step", "Step", "▁Ann", "▁She", "▁has", "▁The", "▁answer", "▁is", "▁So", "▁pens"]
    pieces = [("<unk>", -20.0), ("<s>", 0.0), ("</s>", 0.0), ("\n", -3.0), ("▁", -4.0)]
    pieces += [(word, -1.0) for word in words] + [(character, -5.0) for character in characters]
    inner = Tokenizer(models.Unigram(pieces, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wrapped(raw: PreTrainedTokenizerFast) -> HFTokenizer:
    """A transformers tokenizer behind the project's seam."""
    return HFTokenizer(raw, TokenBytes(raw, len(raw)), frozenset())


def tree_of(steps: Sequence[str] = STEPS, question: str = QUESTION, name: str = "t#0") -> tuple[SearchTree, NodeId]:
    """A path of steps as a policy with a tokenizer of its own wrote them."""
    tree = SearchTree(name, (1, 2, 3), f"Solve: {question}\n\n", question)
    node = ROOT
    for number, text in enumerate(steps):
        node = tree.add_child(node)
        tree.write(Step(node, (9, number), f"{text}\n\n", FinishReason.STOP, "w"))
    return tree, node


def sizes(vocab: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


Reference = Callable[[Tensor], Tensor]
"""(1, num_tokens) ids -> (num_tokens, num_outputs): logits over the vocabulary, or a head's outputs."""


def label_model(folder: Path, kind: str) -> Reference:
    """An ordinary causal model: Math-Shepherd's are Mistral, RLHFlow's are Llama."""
    torch.manual_seed(1)
    if kind == "math-shepherd":
        raw = sentencepiece_tokenizer()
        model: Any = MistralForCausalLM(MistralConfig(**sizes(len(raw)), sliding_window=None))
    else:
        raw = byte_tokenizer("llama" if kind == "rlhflow" else "blank lines", "<|begin_of_text|>")
        model = LlamaForCausalLM(LlamaConfig(**sizes(len(raw))))
    raw.save_pretrained(folder)
    model.eval().save_pretrained(folder)
    return lambda ids: model(input_ids=ids).logits[0]


def headed_model(folder: Path, kind: str) -> Reference:
    """Published layouts with a head of their own, from transformers' base model and a head by hand."""
    torch.manual_seed(2)
    raw = byte_tokenizer("qwen", "<|im_start|>" if kind == "skywork-o1" else None)
    raw.save_pretrained(folder)
    config = Qwen2Config(**sizes(len(raw)))
    base = Qwen2Model(config).eval()
    tensors = {f"model.{name}": value.contiguous() for name, value in base.state_dict().items()}
    if kind in ("qwen-math-prm", "reasonflux"):
        architecture = "Qwen2ForProcessRewardModel"
        head: nn.Module = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
        tensors |= {f"score.{name}": value for name, value in head.state_dict().items()}
    else:
        architecture = "Qwen2ForPrmModel"
        head = nn.Linear(32, 1)
        tensors |= {f"v_head.summary.{name}": value for name, value in head.state_dict().items()}
        tensors["lm_head.weight"] = torch.randn(len(raw), 32)
        if kind == "skywork-wrapped":
            tensors = {f"pretrained_model.{name}".replace("pretrained_model.v_head", "v_head"): value
                       for name, value in tensors.items()}  # fmt: skip
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    content = {**config.to_dict(), "architectures": [architecture]}
    content["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Code"}
    (folder / "config.json").write_text(json.dumps(content))
    return lambda ids: head(base(input_ids=ids).last_hidden_state[0])


def classifier(folder: Path, kind: str) -> Reference:
    """transformers' own classification models; these pool, so the reference reads every token through their parts."""
    torch.manual_seed(3)
    raw = byte_tokenizer({"llama": "plain", "token": "llama", "qwen3-token": "llama"}.get(kind, "qwen"))
    raw.save_pretrained(folder)
    if kind == "llama":
        model: Any = LlamaForSequenceClassification(LlamaConfig(**sizes(len(raw)), num_labels=1))
    elif kind.startswith("qwen3"):
        made: Any = Qwen3ForTokenClassification if kind == "qwen3-token" else Qwen3ForSequenceClassification
        model = made(Qwen3Config(**sizes(len(raw)), head_dim=8, num_labels=2 if kind == "qwen3-token" else 1))
    elif kind == "token":
        model = Qwen2ForTokenClassification(Qwen2Config(**sizes(len(raw)), num_labels=2))
    else:
        model = Qwen2ForSequenceClassification(Qwen2Config(**sizes(len(raw)), num_labels=1))
    model.eval().save_pretrained(folder)
    return lambda ids: model.score(model.model(input_ids=ids).last_hidden_state[0])


FAMILIES: dict[str, tuple[Callable[[Path, str], Reference], str, str]] = {
    "math-shepherd": (label_model, "math-shepherd", "math-shepherd"),
    "rlhflow": (label_model, "rlhflow", "rlhflow"),
    "VersaPRM": (label_model, "versaprm", "versaprm"),
    "qwen-math-prm": (headed_model, "qwen-math-prm", "qwen-math-prm"),
    "ReasonFlux-7B": (headed_model, "reasonflux", "reasonflux"),
    "skywork-o1": (headed_model, "skywork-o1", "skywork-o1"),
    "skywork-o1-wrapped": (headed_model, "skywork-wrapped", "skywork-o1"),
    "reward-head-qwen2": (classifier, "qwen2", "reward-head"),
    "reward-head-llama": (classifier, "llama", "reward-head"),
    "reward-head-qwen3": (classifier, "qwen3", "reward-head"),
    "trl": (classifier, "token", "trl"),
    "trl-qwen3": (classifier, "qwen3-token", "trl"),
}
"""Builder, its argument, and the codec that reads it, by case."""
