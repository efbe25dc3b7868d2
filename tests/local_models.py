"""Tiny random models and tokenizers for the tests of the local engine, and a plain reference of what it must give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from search.engines.huggingface.token_bytes import byte_alphabet
from search.engines.local import LocalEngine
from search.engines.local.graphs import GraphedForward, Recording
from search.engines.local.loading import prepare
from search.support.streams import closing
from search.types import Child, Generation, Prefix, Sampling, Segment

T = TypeVar("T")
PROMPT = tuple(random.Random(5).randrange(256) for _ in range(20))
GREEDY = Sampling(temperature=0.0, max_new_tokens=9, stop=())
VOCAB = 260
ATTENTION = "auto"
"""What `engine` asks for where a test does not; test modules that hold for both forms set it by a fixture."""
CONTEXT = 160


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; a hang is ended by pytest's own limit, which is meant for a machine that is busy."""
    return asyncio.run(work)


@lru_cache(maxsize=1)
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and two special ones."""
    vocab = byte_alphabet()
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>")


def network(kind: str, seed: int = 0) -> Any:
    """A random model of one architecture, float32, in evaluation mode."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 256,
        "pad_token_id": None,
    }
    if kind == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=4))
    elif kind == "llama-gqa":
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=1, sliding_window=None))
    elif kind == "neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    elif kind == "opt":
        del sizes["intermediate_size"], sizes["initializer_range"]
        model = OPTForCausalLM(OPTConfig(**sizes, ffn_dim=48, init_std=0.3, word_embed_proj_dim=32))
    else:
        raise ValueError(kind)
    return model.eval()


def engine(kind: str = "qwen2", model: Any = None, attention: str = "", **settings: Any) -> LocalEngine:
    """An engine over a random model; attention "recorded": paged, in turns that are recorded as on a GPU."""
    attention = attention or ATTENTION
    form = "paged" if attention == "recorded" else attention
    loaded = prepare(model or network(kind), byte_tokenizer(), name=kind, attention=form)
    if attention == "recorded":
        loaded.forward = GraphedForward(loaded.forward, lambda: rerun)
    return LocalEngine(loaded, **settings)


def rerun(run: Callable[[], tuple[torch.Tensor, dict[int, torch.Tensor]]]) -> Recording:
    """What a CUDA graph does, by running again what was recorded into the outputs of its first run."""
    logits, hidden = run()
    hidden = {layer: states.clone() for layer, states in hidden.items()}

    def replay() -> None:
        for layer, states in run()[1].items():
            hidden[layer].copy_(states)

    logits.fill_(float("nan"))
    return Recording(replay, logits, hidden)


@lru_cache(maxsize=8)
def _reference(kind: str) -> Any:
    return network(kind)


@torch.inference_mode()
def reference_logprobs(kind: str, ids: Sequence[int]) -> torch.Tensor:
    """(vocab,) log-probabilities after `ids`, by the model's own forward."""
    logits = _reference(kind)(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), -1)


@torch.inference_mode()
def reference_greedy(kind: str, ids: Sequence[int], num_tokens: int) -> tuple[int, ...]:
    """What transformers' `generate` writes greedily."""
    out = _reference(kind).generate(
        torch.tensor([list(ids)]),
        attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=257,
    )
    return tuple(out[0, len(ids) :].tolist())


def prompt(tree: str = "t", *steps: Generation | Segment, ids: tuple[int, ...] = PROMPT) -> Prefix:
    """A prefix of a prompt and steps."""
    return Prefix(tree, (Segment(0, ids), *(Segment(step.key, step.ids) for step in steps)))


async def write(local: LocalEngine, prefix: Prefix, children: list[Child], sampling: Sampling) -> dict[int, Generation]:
    """The steps of one call, by key."""
    async with closing(local.generate(prefix, children, sampling)) as made:
        return {step.key: step async for step in made}
