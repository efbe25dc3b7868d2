"""Whether the engine computes what the model's own code computes, found out at load, on the model itself.

Shapes are probed, never inferred from the configuration. Then a small random tree goes through the engine's own
machinery, and is compared with the model's plain forward over its paths. How much may lie between them is the
model's own rounding, measured here, never a constant: the logits of a real model in bfloat16 are off by a third of
their size on random tokens, which hides a wrong head, while those of a small one are not. So two things are compared:

- **each layer's attention by itself**. What a layer was given on the tree is given to the same module with its own
  eager attention, and once more in twice the precision. From that last one, the tree's output may be as far as a few
  times the module's own. Errors of earlier layers do not enter, so the depth does not matter: one head off, a key too
  few, a soft cap left out, a wrong position stand out in bfloat16 too. The first layer's input must be the same
  but for a last digit, which checks the positions of models that embed them;
- **the logits**, for all that lies outside attention: they may be as far from the plain forward's as a few times what
  that one moves when the last digit of every module's output is changed at random.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from search.engines.local.arena import BLOCKED
from search.engines.local.batch import Batch
from search.engines.local.forward import (
    CascadeForward,
    DenseForward,
    Forward,
    PagedForward,
    RefusedError,
    TreeForward,
    attention_of,
)
from search.engines.local.paged_attention import has_kernel
from search.engines.local.rounding import Call, call_wider, call_with, hidden_of, last_digits, rms, watching
from search.engines.local.rows import Result
from search.engines.local.scheduler import Scheduler
from search.engines.stops import TokenTable
from search.errors import ConfigError, first_line
from search.types import Generation, Prefix, Sampling, Segment

Attention = Literal["auto", "paged", "cascade"]
"""How trees are attended to: over one pool of slots, over an arena a tree, or as `choose_forward` says."""


def choose_forward(network: Any, context_tokens: int, name: str, attention: Attention = "auto") -> Forward:
    """The fastest forward that is exact for a model; warns once where that is the slow one.

    On a GPU launches are what costs, so one pool for all trees comes first where there is a kernel for it; on a CPU
    contiguous arenas are several times faster than gathered slots.

    Raises:
        ConfigError: none is, or there is no such attention.
    """
    kinds: dict[str, list[type[TreeForward]]] = {
        "auto": [PagedForward, CascadeForward] if has_kernel(next(network.parameters()).device) else [CascadeForward],
        "paged": [PagedForward],
        "cascade": [CascadeForward],
    }
    if attention not in kinds:
        raise ConfigError(f"attention {attention!r} is not one of {', '.join(kinds)}")
    reasons = []
    for kind in kinds[attention]:
        forward: TreeForward | None = None
        try:
            forward = kind(network, context_tokens)
            _compare(forward, network, context_tokens)
        except RefusedError as refusal:
            reasons.append(str(refusal))
            if forward is not None:
                forward.undo()
            continue
        if reasons:
            _warn(network, f"{reasons[0]}; it runs with {kind.name} attention, exact but slower")
        return forward
    try:
        dense = DenseForward(network)
        _compare(dense, network, context_tokens)
    except RefusedError as refusal:
        raise ConfigError(
            f"model {name!r}: {type(network).__name__} is not supported: {reasons[-1]}; {refusal}"
        ) from None
    _warn(network, f"{reasons[-1]}; it runs without shared attention, exact but several times slower")
    return dense


def _warn(network: Any, what: str) -> None:
    warnings.warn(f"{type(network).__name__}: {what}", RuntimeWarning, stacklevel=5)


class _Recorder:
    """Runs batches, keeps what went through them by (position, token), and chooses the tokens that are written.

    No token is written twice at one position (as long as the vocabulary lasts), but for siblings' first ones, so a key
    stands for one path.
    """

    def __init__(self, forward: Forward, attentions: list[nn.Module]) -> None:
        self._forward, self._attentions = forward, attentions
        self.name, self.shape, self.store = forward.name, forward.shape, forward.store
        self.tap, self.hidden = forward.tap, forward.hidden
        self.logits: dict[tuple[int, int], list[Tensor]] = {}
        self.place: dict[tuple[int, int], int] = {}
        self.inputs: list[list[Tensor]] = [[] for _ in attentions]
        self.outputs: list[list[Tensor]] = [[] for _ in attentions]
        self._num_tokens = 0
        self._used: dict[int, set[int]] = {}

    def __call__(self, batch: Batch) -> Tensor:
        with watching(self._attentions, self._see):
            logits = self._forward(batch)
        self.hidden = self._forward.hidden
        keys = list(zip(batch.positions.tolist(), batch.ids.tolist(), strict=True))
        for at, key in enumerate(keys, self._num_tokens):
            self.place.setdefault(key, at)
            self._used.setdefault(key[0], set()).add(key[1])
        self._num_tokens += len(keys)
        for at, row in zip(batch.reads.tolist(), logits, strict=True):
            self.logits.setdefault(keys[at], []).append(row.clone())
        choice = torch.zeros_like(logits, dtype=torch.float32)
        for row in range(batch.num_lanes):
            position = keys[row][0] + 1
            used = self._used.setdefault(position, set())
            token = (7919 * (keys[row][1] + 1)) % logits.shape[1]
            while token in used and len(used) < logits.shape[1]:
                token = (token + 1) % logits.shape[1]
            used.add(token)
            choice[row] = BLOCKED
            choice[row, token] = 0.0
        return choice

    def _see(self, layer: int, call: Call, output: Tensor) -> None:
        self.inputs[layer].append(hidden_of(call)[0])
        self.outputs[layer].append(output[0])


def _compare(forward: Forward, network: Any, context_tokens: int) -> None:
    """Compare a random tree of two levels with the plain forward.

    Raises:
        RefusedError: more than rounding lies between them.
    """
    attentions = forward.attentions if isinstance(forward, TreeForward) else []
    recorder = _Recorder(forward, attentions)
    with torch.inference_mode():
        try:
            paths = _run_tree(recorder, network, context_tokens)
        except Exception as error:  # a kernel is compiled here, and what a compiler raises is not to be listed
            if not isinstance(forward, PagedForward):
                raise
            raise RefusedError(f"its attention over a pool does not run here ({first_line(error)})") from error
        longest = max(len(path) for path in paths)
        # Nobody sees what is padded on the right.
        ids = torch.tensor([path + path[-1:] * (longest - len(path)) for path in paths], device=forward.shape.device)
        calls: dict[int, Call] = {}
        with attention_of(network, "eager"):
            with watching(attentions, lambda layer, call, _: calls.__setitem__(layer, call)):
                plain = network(input_ids=ids, use_cache=False).logits
            for layer, attention in enumerate(attentions):
                try:
                    _compare_layer(layer, attention, calls[layer], paths, recorder)
                except (TypeError, ValueError, RuntimeError, LookupError, StopIteration) as error:
                    raise RefusedError(f"the attention of layer {layer} cannot be checked ({error})") from error
            with last_digits(network, forward.shape.dtype):
                shaken = network(input_ids=ids, use_cache=False).logits
        _compare_logits(plain, shaken, paths, recorder)


def _run_tree(recorder: _Recorder, network: Any, context_tokens: int) -> list[tuple[int, ...]]:
    """Write and score a tree; returns its paths, of computed tokens alone."""
    vocab = int(network.get_input_embeddings().weight.shape[0])
    scheduler = Scheduler(
        recorder,
        context_tokens=context_tokens,
        vocab_size=vocab,
        table=TokenTable([b""] * vocab, [b""] * vocab),
        eos_ids=frozenset(),
        max_kv_tokens=None,
        max_rows=8,
        max_batch_tokens=6,
    )
    results: list[Result] = []
    sampling = Sampling(temperature=1.0, max_new_tokens=4, stop=())
    random = torch.Generator().manual_seed(1)
    root, extra = (tuple(torch.randint(vocab, (n,), generator=random).tolist()) for n in (7, 3))

    def run(path: tuple[Segment, ...], **what: Any) -> None:
        scheduler.submit(Prefix("check", path), results.append, arrived=0.0, **what)
        while scheduler.turn():
            pass

    top = Segment(0, root)
    run((top,), children=((1, 11), (2, 12), (3, 13)), sampling=sampling)
    steps = {step.key: step.ids for step in results if isinstance(step, Generation)}
    scheduler.release("check", [1])
    middle = Segment(2, steps[2])
    run((top, middle), children=((4, 14), (5, 15)), sampling=sampling)
    run((top, middle, Segment(6, extra)), labels=(0,))
    steps |= {step.key: step.ids for step in results if isinstance(step, Generation)}
    written = [(root, steps[1]), (root, steps[3]), (root, steps[2], steps[4]), (root, steps[2], steps[5])]
    # A written step's last token is not computed yet; a scored segment's last one is.
    return [sum(path, ())[:-1] for path in written] + [root + steps[2] + extra]


def _compare_layer(
    layer: int, attention: nn.Module, call: Call, paths: list[tuple[int, ...]], recorder: _Recorder
) -> None:
    """Compare one attention module on the tree with itself on whole paths; `call`: the plain forward's."""
    longest = max(len(path) for path in paths)
    places = [[recorder.place[key] for key in enumerate(path)] for path in paths]
    given = hidden_of(call)
    index = torch.tensor([place + place[-1:] * (longest - len(place)) for place in places], device=given.device)
    hidden = torch.cat(recorder.inputs[layer])[index]
    found = torch.cat(recorder.outputs[layer])[index]
    digit = torch.finfo(hidden.dtype).eps
    exact = call_wider(attention, call, hidden)
    size = rms(exact)
    error, bound = rms(found - exact), 4 * rms(call_with(attention, call, hidden) - exact) + 2 * digit * size
    pairs = [("attention", error, bound, size)]
    if layer == 0:
        # Only embeddings lie before it, those of positions among them.
        pairs.append(("input", rms(hidden - given), 4 * digit * rms(given), rms(given)))
    for what, error, bound, size in pairs:
        for row, path in enumerate(paths):
            for position in range(len(path)):
                _refuse_more(error[row, position], bound[row, position], size[row, position], position, layer, what)


def _compare_logits(plain: Tensor, shaken: Tensor, paths: list[tuple[int, ...]], recorder: _Recorder) -> None:
    """Compare logits on the tree with those of whole paths, (num_paths, num_tokens, vocab)."""
    digit = torch.finfo(plain.dtype).eps
    for path, own, other in zip(paths, plain.double(), shaken.double(), strict=True):
        size = rms(own)
        bound = 8 * rms(other - own) + 4 * digit * size
        for position, token in enumerate(path):
            for logits in recorder.logits.get((position, token), ()):
                _refuse_more(rms(logits - own[position]), bound[position], size[position], position)


def _refuse_more(
    error: Tensor, bound: Tensor, size: Tensor, position: int, layer: int | None = None, what: str = "logits"
) -> None:
    if not bool(error <= bound):
        place = f"its {what}" if layer is None else f"the {what} of layer {layer}"
        raise RefusedError(
            f"{place} on a tree differs from its own by {float(error / size):.2g} of its size at token {position}, "
            f"where rounding explains {float(bound / size):.2g}"
        )
