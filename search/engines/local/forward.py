"""From a batch to logits: the model's own forward over our attention, or, where that is not exact, over dense copies.

Both take the same batches and keep the same arenas, so the scheduler does not know which of them runs.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from search.engines.local.arena import KVShape
from search.engines.local.attention import attend, best_partial
from search.engines.local.batch import ArenaBatch, Batch
from search.engines.local.hidden_states import FINAL, HiddenTap
from search.engines.local.paged import PagedBatch, PagedStore
from search.engines.local.paged_attention import best_paged
from search.engines.local.store import ArenaStore, Store

ATTENTION_NAME = "search_tree"

_Read = tuple[Tensor, dict[int, Tensor]]
"""A token's logits, and its hidden states by layer."""


class Forward(Protocol):
    """Runs batches through one model."""

    name: str
    shape: KVShape
    tap: HiddenTap
    """Says whose hidden states are kept."""
    hidden: dict[int, Tensor]
    """(num_reads, dim) the last call's hidden states in `batch.reads`, by layer, as its `tap` says."""

    def store(self, max_rows: int, max_kv_tokens: int | None) -> Store:
        """A new store of the form that its batches must have; `max_kv_tokens`: the most slots that are asked of it."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (num_reads, vocab) of the tokens in `batch.reads`; writes the new KV."""


def _tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: (1, heads, tokens, dim) -> (1, tokens, heads, dim)."""
    forward: TreeForward = module.search_forward  # type: ignore[assignment]
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if forward.batch is None:
        forward.num_heads = query.shape[1]
        forward.probed.append((module, tuple(key.shape), tuple(value.shape), kwargs))
        # Only shapes are asked for: the values do not matter.
        return torch.zeros_like(query).transpose(1, 2)[..., : value.shape[-1]], None
    return forward.attend(forward.batch, layer, query[0], key[0], value[0], scale)[None], None


def set_attention(model: Any, names: str | dict[int, str]) -> dict[int, str]:
    """Set the attention implementation of all of a model's configurations; returns what stood there before."""
    configs: dict[int, Any] = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for key, config in configs.items():
        config._attn_implementation = names if isinstance(names, str) else names[key]
    return before


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Another attention implementation for a while."""
    before = set_attention(model, name)
    try:
        yield
    finally:
        set_attention(model, before)


class RefusedError(Exception):
    """The model's attention is not what ours computes; the message names why."""


class TreeForward(ABC):
    """The model's own forward with our attention in every layer.

    Attributes:
        attentions: the model's attention modules, layer by layer.
        batch: what runs; None while the model is probed.
        num_heads: of its queries.
        probed: what its layers gave while it was probed: the module, the shapes of keys and values, and all else.
    """

    name = ""

    def __init__(self, model: Any, context_tokens: int) -> None:
        """Probe a model.

        Raises:
            RefusedError: its layers do not call the attention interface, or ask it for more than a causal mask.
        """
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION_NAME, _tree_attention)
        self._model = model
        self.batch: Batch | None = None
        self.num_heads = 0
        self.probed: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...], dict[str, object]]] = []
        # The argument by which a model computes the logits of some tokens only; empty if it has none.
        self._keep = "logits_to_keep" if "logits_to_keep" in inspect.signature(model.forward).parameters else ""
        self.tap = HiddenTap(model)
        self.hidden: dict[int, Tensor] = {}
        for module in model.modules():
            module.search_forward = self
        with attention_of(model, ATTENTION_NAME):
            self.shape = self._probe(context_tokens)
        self._before = set_attention(model, ATTENTION_NAME)

    @abstractmethod
    def store(self, max_rows: int, max_kv_tokens: int | None) -> Store:
        """As in `Forward`."""

    @abstractmethod
    def attend(self, batch: Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of a flat batch in one layer; writes the new KV.

        Args:
            batch: what is computed.
            layer: the layer's index.
            query: (num_heads, num_tokens, head_dim).
            key: (num_kv_heads, num_tokens, head_dim).
            value: (num_kv_heads, num_tokens, head_dim).
            scale: of the scores.

        Returns:
            (num_tokens, num_heads, head_dim).
        """

    def undo(self) -> None:
        """Put the model's own attention back."""
        set_attention(self._model, self._before)

    def _probe(self, context_tokens: int) -> KVShape:
        device, dtype = _place(self._model)
        ids = torch.zeros((1, 2), dtype=torch.long, device=device)
        with torch.inference_mode():
            try:
                self._model(input_ids=ids, position_ids=torch.arange(2, device=device)[None], use_cache=False)
            except (AttributeError, TypeError, ValueError, RuntimeError, KeyError) as error:
                raise RefusedError(f"its forward does not take our attention ({error})") from error
        calls, self.probed = self.probed, []
        num_layers = getattr(self._model.config.get_text_config(decoder=True), "num_hidden_layers", len(calls))
        calls.sort(key=lambda call: int(call[0].layer_idx))  # type: ignore[arg-type]
        if [call[0].layer_idx for call in calls] != list(range(num_layers)):
            raise RefusedError(f"{len(calls)} of {num_layers} layers call the attention interface")
        self.attentions = [call[0] for call in calls]
        shapes = {call[1] for call in calls} | {call[2] for call in calls}
        if len(shapes) != 1:
            raise RefusedError(f"keys and values have different sizes: {sorted(shapes)}")
        for layer, (_, _, _, asked) in enumerate(calls):
            _refuse_extras(layer, asked, context_tokens)
        _, heads, _, dim = shapes.pop()
        return KVShape(num_layers, heads, dim, device, dtype)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (num_reads, vocab); writes the new KV to where the batch says."""
        self.batch = batch
        arguments: dict[str, Any] = {self._keep: batch.reads} if self._keep else {}
        try:
            logits: Tensor = self._model(
                input_ids=batch.ids[None],
                position_ids=batch.positions[None],
                use_cache=False,
                **arguments,
            ).logits[0]
        finally:
            self.batch = None
        # Of the last layer the model itself has kept those that are read, where it can.
        self.hidden = {
            layer: states[0] if self._keep and layer == FINAL else states[0].index_select(0, batch.reads)
            for layer, states in self.tap.last.items()
        }
        return logits if self._keep else logits.index_select(0, batch.reads)


class CascadeForward(TreeForward):
    """A call of attention for every tree over its arena, one over the rows' own columns, merged."""

    name = "cascade"

    def __init__(self, model: Any, context_tokens: int) -> None:
        """Probe a model; raises as `TreeForward` does."""
        super().__init__(model, context_tokens)
        self._partial = best_partial(self.shape.device, self.shape.dtype)

    def store(self, max_rows: int, max_kv_tokens: int | None) -> Store:
        """Arenas and columns."""
        return ArenaStore(self.shape, max_rows)

    def attend(self, batch: Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """As in `TreeForward`."""
        assert isinstance(batch, ArenaBatch)
        return attend(batch, layer, query, key, value, scale, self._partial)


class PagedForward(TreeForward):
    """One call of attention over one pool of slots for all trees: what it launches does not grow with them."""

    name = "paged"

    def __init__(self, model: Any, context_tokens: int) -> None:
        """Probe a model; raises as `TreeForward` does."""
        super().__init__(model, context_tokens)
        self._attention = best_paged(self.shape.device)

    def store(self, max_rows: int, max_kv_tokens: int | None) -> PagedStore:
        """A pool."""
        return PagedStore(self.shape, max_rows, max_kv_tokens, self.num_heads)

    def attend(self, batch: Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """As in `TreeForward`."""
        assert isinstance(batch, PagedBatch)
        kv = batch.pool.kv[layer]
        kv[0].index_copy_(0, batch.slots, key.transpose(0, 1))
        kv[1].index_copy_(0, batch.slots, value.transpose(0, 1))
        return self._attention(query.transpose(0, 1), kv[0], kv[1], batch.jobs, scale)


class DenseForward:
    """The model's own forward and attention over a copy of each path's KV: exact for more models, and slow."""

    name = "dense"

    def __init__(self, model: Any) -> None:
        """Probe a model.

        Raises:
            RefusedError: its cache is not one key and one value tensor of equal sizes a layer.
        """
        from transformers import DynamicCache

        self._model, (device, dtype) = model, _place(model)
        self.tap = HiddenTap(model)
        self.hidden: dict[int, Tensor] = {}
        # The faster implementations leave out what they cannot do, soft caps for one.
        set_attention(model, "eager")
        self._cache_type = DynamicCache
        cache = DynamicCache()
        with torch.inference_mode():
            try:
                self._model(
                    input_ids=torch.zeros((1, 2), dtype=torch.long, device=device),
                    past_key_values=cache,
                    use_cache=True,
                )
                layers: list[Any] = cache.layers
                shapes = {tuple(kv.shape) for layer in layers for kv in (layer.keys, layer.values)}
            except (AttributeError, TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
                raise RefusedError(f"its forward does not take a plain KV cache ({error})") from error
        if len(shapes) != 1 or len(next(iter(shapes))) != 4:
            raise RefusedError(f"its cache is not one key and value of equal sizes a layer: {sorted(shapes)}")
        _, heads, num_tokens, dim = shapes.pop()
        if num_tokens != 2:
            raise RefusedError("its cache does not hold one entry a token")
        self.shape = KVShape(len(cache.layers), heads, dim, device, dtype)

    def store(self, max_rows: int, max_kv_tokens: int | None) -> Store:
        """Arenas and columns."""
        return ArenaStore(self.shape, max_rows)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (num_reads, vocab); writes the new KV to lanes and arenas."""
        assert isinstance(batch, ArenaBatch)
        logits: list[_Read] = []
        lane_logits: dict[int, _Read] = {}
        for part in batch.decode:
            for row, lane in enumerate(part.lanes):
                slots = torch.nonzero(part.mask[row] == 0)[:, 0]
                own = torch.nonzero(batch.lanes_mask[lane, 0, 0, :-1] == 0)[:, 0] + batch.first_column
                past = torch.cat(
                    [part.arena.kv.index_select(3, slots), batch.lanes_kv[:, :, lane].index_select(3, own)], 3
                )
                token = slice(lane, lane + 1)
                reads, new = self._run(past, batch.ids[token], batch.positions[token])
                lane_logits[lane] = reads[-1]
                batch.lanes_kv[:, :, lane, :, batch.column] = new[:, :, :, 0]
        logits.extend(lane_logits[lane] for lane in range(batch.num_lanes))
        for fresh in batch.prefill:
            at = fresh.first
            for chunk in fresh.chunks:
                slots = torch.from_numpy(chunk.prefix).to(self.shape.device)
                tokens = slice(at, at + len(chunk.ids))
                reads, new = self._run(
                    fresh.arena.kv.index_select(3, slots), batch.ids[tokens], batch.positions[tokens]
                )
                fresh.arena.store(chunk.start, new)
                logits.extend(reads[read] for read in chunk.reads)
                at += len(chunk.ids)
        self.hidden = {layer: torch.stack([hidden[layer] for _, hidden in logits]) for layer in self.tap.last if logits}
        return torch.stack([row for row, _ in logits]) if logits else torch.zeros((0, 1))

    def _run(self, past: Tensor, ids: Tensor, positions: Tensor) -> tuple[list[_Read], Tensor]:
        """One path: each new token's logits and hidden states, and the KV (2, layers, heads, n, dim)."""
        cache: Any = self._cache_type()
        num_past = past.shape[3]
        if num_past:
            for layer in range(self.shape.num_layers):
                cache.update(past[0, layer][None], past[1, layer][None], layer)
        logits = self._model(
            input_ids=ids[None], position_ids=positions[None], past_key_values=cache, use_cache=True
        ).logits[0]
        new = torch.stack(
            [
                torch.stack([layer.keys[0, :, num_past:] for layer in cache.layers]),
                torch.stack([layer.values[0, :, num_past:] for layer in cache.layers]),
            ]
        )
        states = {layer: kept[0] for layer, kept in self.tap.last.items()}
        return [(row, {layer: kept[at] for layer, kept in states.items()}) for at, row in enumerate(logits)], new


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a model runs, and in which precision."""
    parameter = next(model.parameters())
    return parameter.device, parameter.dtype


def _refuse_extras(layer: int, asked: Mapping[str, object], context_tokens: int) -> None:
    """Refuse what a plain causal mask does not express."""
    window = asked.get("sliding_window")
    if isinstance(window, int) and window < context_tokens:
        raise RefusedError(f"layer {layer} has a sliding window of {window} tokens, shorter than the context")
    names = {"softcap": "a soft cap on its scores", "s_aux": "attention sinks", "position_bias": "a position bias"}
    for name, meaning in names.items():
        value = asked.get(name)
        if value is not None and not (isinstance(value, float) and value == 0.0):
            raise RefusedError(f"layer {layer} has {meaning}")
