"""Fast batched sampling from a mini model, for training data and for measurement.

Searches run on ``search.engines``; this file serves where thousands of independent solutions are wanted at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from search.mini.corpus import Document, padded
from search.mini.model import MiniModel
from search.mini.tokenizer import EOS_TOKEN, PAD_TOKEN, token_id
from search.mini.wording import BAD_LABEL, GOOD_LABEL

MAX_SOLUTION_TOKENS = 230
_MINUS = -1e9


@torch.inference_mode()
def sample(
    model: MiniModel,
    prefixes: Sequence[Sequence[int]],
    seed: int,
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int = MAX_SOLUTION_TOKENS,
    rows_at_once: int = 512,
) -> list[list[list[int]]]:
    """Sample continuations in float32.

    Args:
        model: on the CPU, float32.
        prefixes: token ids of each prefix.
        seed: decides all draws.
        num_samples: continuations of each prefix.
        temperature: 0 takes the likeliest token.
        max_tokens: a longer continuation is cut.
        rows_at_once: batch size.

    Returns:
        For each prefix its continuations, with the stop token where they came to one.
    """
    per_call = max(1, rows_at_once // num_samples)
    continuations: list[list[list[int]]] = []
    for start in range(0, len(prefixes), per_call):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        part = prefixes[start : start + per_call]
        rows = _sample_rows(model, part, generator, num_samples, temperature, max_tokens)
        continuations.extend(rows[place : place + num_samples] for place in range(0, len(rows), num_samples))
    return continuations


def _sample_rows(
    model: MiniModel,
    prefixes: Sequence[Sequence[int]],
    generator: torch.Generator,
    num_samples: int,
    temperature: float,
    max_tokens: int,
) -> list[list[int]]:
    length = max(len(prefix) for prefix in prefixes)
    cache = DynamicCache()
    ids = torch.full((len(prefixes), length), token_id(PAD_TOKEN))
    for row, prefix in enumerate(prefixes):
        ids[row, length - len(prefix) :] = torch.tensor(list(prefix))
    padding = torch.tensor([length - len(prefix) for prefix in prefixes])
    columns = torch.arange(length)
    hidden_columns = (columns[None] < padding[:, None]).float() * _MINUS
    mask = torch.full((length, length), _MINUS).triu(1)[None, None] + hidden_columns[:, None, None]
    positions = (columns[None] - padding[:, None]).clamp(min=0)
    last_rows = torch.arange(len(prefixes)) * length + length - 1
    logits = model(ids, positions=positions, mask=mask, cache=cache, logit_rows=last_rows)
    cache.batch_repeat_interleave(num_samples)
    logits, padding = (part.repeat_interleave(num_samples, 0) for part in (logits, padding))
    return _decode(model, cache, logits, padding, generator, temperature, max_tokens)


def _decode(
    model: MiniModel,
    cache: Cache,
    logits: Tensor,
    padding: Tensor,
    generator: torch.Generator,
    temperature: float,
    max_tokens: int,
) -> list[list[int]]:
    num_rows = len(padding)
    stop = token_id(EOS_TOKEN)
    written: list[list[int]] = [[] for _ in range(num_rows)]
    live = torch.arange(num_rows)
    done = torch.zeros(num_rows, dtype=torch.bool)
    for number in range(max_tokens):
        draws = torch.rand(num_rows, generator=generator)
        tokens = _pick(logits, draws[live], temperature)
        for row, token, over in zip(live.tolist(), tokens.tolist(), done.tolist(), strict=True):
            if not over:
                written[row].append(token)
        done = done | (tokens == stop)
        if bool(done.all()) or number + 1 == max_tokens:
            break
        if float(done.float().mean()) > 0.25:
            keep = (~done).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            live, padding, tokens, done = live[keep], padding[keep], tokens[keep], done[keep]
        length = cache.get_seq_length()
        columns = torch.arange(length + 1)
        mask = ((columns[None] < padding[:, None]).float() * _MINUS)[:, None, None]
        positions = (length - padding)[:, None]
        logits = model(tokens[:, None], positions=positions, mask=mask, cache=cache)[:, 0]
    return written


def _pick(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """One token a row: the likeliest at temperature 0, else by inverse distribution function."""
    if temperature == 0:
        return logits.argmax(-1)
    sums = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    tokens = torch.searchsorted(sums, (draws.double() * sums[:, -1])[:, None], right=True)[:, 0]
    return tokens.clamp(max=logits.shape[1] - 1)


@torch.inference_mode()
def step_rewards(model: MiniModel, documents: Sequence[Document], rows_at_once: int = 128) -> list[list[float]]:
    """The PRM's reward of each step of each document, each in [0, 1].

    The reward is p('+') / (p('+') + p('-')) of the next-token distribution at the step's last token.
    """
    labels = torch.tensor([token_id(GOOD_LABEL), token_id(BAD_LABEL)])
    order = sorted(range(len(documents)), key=lambda number: len(documents[number].ids))
    rewards: list[list[float]] = [[] for _ in documents]
    for start in range(0, len(order), rows_at_once):
        numbers = order[start : start + rows_at_once]
        part = [documents[number] for number in numbers]
        ids, length = padded(part)
        places = [row * length + end for row, document in enumerate(part) for end in document.ends]
        logits = model(ids, logit_rows=torch.tensor(places))[:, labels]
        values = iter(torch.softmax(logits, -1)[:, 0].tolist())
        for number in numbers:
            rewards[number] = [next(values) for _ in documents[number].ends]
    return rewards
