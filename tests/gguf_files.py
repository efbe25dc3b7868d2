"""Tiny .gguf files, written with the gguf package, and the same weights as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from search.engines.huggingface.token_bytes import byte_alphabet

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2")]
TOKENS = [*byte_alphabet(), *("".join(pair) for pair in MERGES), *CONTROL]
NAMES = {
    "model.embed_tokens.": "token_embd.",
    "model.norm.": "output_norm.",
    "lm_head.": "output.",
    "self_attn.q_norm.": "attn_q_norm.",
    "self_attn.k_norm.": "attn_k_norm.",
    "self_attn.q_proj.": "attn_q.",
    "self_attn.k_proj.": "attn_k.",
    "self_attn.v_proj.": "attn_v.",
    "self_attn.o_proj.": "attn_output.",
    "mlp.gate_proj.": "ffn_gate.",
    "mlp.up_proj.": "ffn_up.",
    "mlp.down_proj.": "ffn_down.",
    "input_layernorm.": "attn_norm.",
    "post_attention_layernorm.": "ffn_norm.",
    "model.layers.": "blk.",
}


def network(kind: str, **changed: Any) -> Any:
    """A random float32 model, "llama", "llama3" (stretched positions), "qwen2" or "qwen3"; `changed`: sizes."""
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 160,
        "initializer_range": 0.3,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": TOKENS.index("<|im_end|>"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "tie_word_embeddings": False,
        **changed,
    }
    if kind == "llama3":
        sizes["rope_parameters"] |= {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
        sizes["rope_parameters"] |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=128)).eval()
    if kind != "qwen2":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    model = Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            torch.nn.init.normal_(projection.bias)
    return model


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of an architecture; Qwen's cuts digits apart."""
    vocab = {token: number for number, token in enumerate(TOKENS)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind in ("qwen2", "qwen3"):
        inner.normalizer = normalizers.NFC()
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    inner.decoder = decoders.ByteLevel()
    raw = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", additional_special_tokens=CONTROL[:2])
    raw.chat_template = TEMPLATE
    return raw


def quantise(weights: np.ndarray[Any, Any], kind: Kind) -> np.ndarray[Any, Any]:
    """The bytes of a tensor's rows; Q4_K, which the gguf package only reads, by each group's least and greatest."""
    if kind != Kind.Q4_K:
        return gguf.quants.quantize(weights, kind)
    groups = weights.reshape(-1, 8, 32)
    least = np.minimum(groups.min(-1), 0)
    steps = (groups.max(-1) - least) / 15
    d, e = ((x.max(-1, keepdims=True) / 63).astype(np.float16) for x in (steps, -least))
    a, b = (np.rint(x / y.astype(np.float32)).clip(0, 63).astype(np.uint8) for x, y in ((steps, d), (-least, e)))
    q = np.rint(
        (groups + (e * b)[..., None].astype(np.float32)) / np.maximum(d * a, 1e-9)[..., None].astype(np.float32)
    )
    q = q.clip(0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    third = a[:, 4:] & 15 | (b[:, 4:] & 15) << 4
    six = np.concatenate((a[:, :4] | a[:, 4:] >> 4 << 6, b[:, :4] | b[:, 4:] >> 4 << 6, third), 1)
    halves = (q[:, :, 0] | q[:, :, 1] << 4).reshape(len(q), -1)
    return np.concatenate((d.view(np.uint8), e.view(np.uint8), six, halves), 1).reshape(len(weights), -1)


def quantised(weights: np.ndarray[Any, Any], kind: Kind) -> np.ndarray[Any, Any]:
    """What a tensor is after it was quantised."""
    return gguf.quants.dequantize(quantise(weights, kind), kind)


def write_folder(folder: Path, model: Any) -> Path:
    """A model as a Hugging Face folder."""
    model.save_pretrained(folder)
    tokenizer(model.config.model_type).save_pretrained(folder)
    return folder


def write_gguf(path: Path, model: Any, kind: Kind = Kind.F32, **keys: str) -> Path:
    """A model as a .gguf file, its matrices as `kind`; changes the model's to what is read back of them.

    Args:
        path: of the file.
        model: of `network`.
        kind: F32, a quantisation of blocks of 32, or Q4_K for a model whose sizes are multiples of 256.
        keys: string values to be added, "__" for a dot.
    """
    config = model.config
    name = config.model_type
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim if name == "qwen3" else config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    types = {Kind.F32: "ALL_F32", Kind.Q4_K: "MOSTLY_Q4_K_S"}
    writer.add_file_type(gguf.LlamaFileType[types.get(kind, "MOSTLY_" + kind.name)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if name.startswith("qwen") else "gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in CONTROL else 1 for token in TOKENS])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for key, value in keys.items():
        writer.add_string(key.replace("__", "."), value)
    if config.rope_parameters["rope_type"] == "llama3":
        theta = config.rope_parameters["rope_theta"]
        dim = config.hidden_size // config.num_attention_heads
        plain = theta ** -(np.arange(0, dim, 2) / dim)
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32))
    for full, parameter in model.named_parameters():
        weights = parameter.detach().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        found = [number for part, number in heads.items() if part in full]
        if name == "llama" and found:
            # llama.cpp turns pairs of neighbours where transformers turns halves.
            weights = weights.reshape(found[0], 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
        short = full
        for ours, theirs in NAMES.items():
            short = short.replace(ours, theirs)
        if kind == Kind.F32 or weights.ndim == 1:
            writer.add_tensor(short, np.ascontiguousarray(weights))
        else:
            writer.add_tensor(short, quantise(np.ascontiguousarray(weights), kind), raw_dtype=kind)
            # Rows are quantised one by one, so their order does not matter.
            parameter.data = torch.from_numpy(quantised(parameter.detach().numpy(), kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
