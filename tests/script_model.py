"""A model that writes known texts, token by token, wherever it is served: each token has one that follows it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from markov import EOS, MarkovModel

from search.engines.huggingface.token_bytes import byte_alphabet
from search.types import Sampling

SCRIPTS: Mapping[str, tuple[Sampling, Sequence[bytes], Sequence[str]]] = {
    "heads": (
        Sampling(0.0),
        [
            b"### Step 1: Add", b"\n\n", b"2 + 3 = 5", b".\n\n", b"Let's go on:", b"\n", b"\n1. ", b"x = 5", b" \n \n",
            b"**Step 2**", b"\n \n", b"Take 5\r\n", b"\r\n", b"### Final answer: 7", b"\n\n ", b"ok",
        ],
        [
            "### Step 1: Add\n\n2 + 3 = 5.\n\n", "Let's go on:\n\n1. x = 5 \n \n", "**Step 2**\n \nTake 5\r\n\r\n",
            "### Final answer: 7\n\n ", "ok",
        ],
    ),
    "fences and formulas": (
        Sampling(0.0),
        [
            b"Code:\n```python\n", b"a = 1", b"\n\n#", b" b\n", b"```\n", b"So 1", b",\n\n~", b"~~\n", b"x\n\n", b"~~",
            b"~\n", b"\t\n", b"\\[\n", b"1\n\n\n", b"\\]", b"\n\n\n", b"$$\n\n2\n\n$$", b";\n\n", b"end",
        ],
        [
            "Code:\n```python\na = 1\n\n# b\n```\nSo 1,\n\n~", "~~\nx\n\n~~~\n\t\n", "\\[\n1\n\n\n\\]\n\n\n",
            "$$\n\n2\n\n$$;\n\n", "end",
        ],
    ),
    "a blank line that no server stops at": (
        Sampling(0.0),
        [b"Six", b"\n  ", b"   \n", b"Seven", b"\n  \t  \nEight", b" and", b" nine", b"\n\n!"],
        ["Six\n     \n", "Seven\n  \t  \nEight", " and nine\n\n!", ""],
    ),
    "split characters": (
        Sampling(0.0, max_new_tokens=2),
        [b"\\boxed{", b"\xe2\x88", b"\x9a", b"7} \xf0", b"\x9f", b"\x98", b"\x80 \xc3", b"\xa9 "],
        ["\\boxed{", "√7} ", "", "😀 é ", ""],
    ),
    "a character that is never whole": (
        Sampling(0.0, max_new_tokens=2),
        [b"abc", b"\xe2\x88\x9a", b"d\xe2", b"\x88"],
        ["abc√", "d", "\N{REPLACEMENT CHARACTER}"],
    ),
    "long lines": (
        Sampling(0.0, max_new_tokens=8, line_end_tokens=6),
        [
            b"One ", b"two\n", b"three ", b"four ", b"five ", b"six\n", b"```\nseven ", b"eight ", b"nine ", b"ten ",
            b"eleven ", b"twelve ", b"thirteen\n", b"fourteen ", b"fifteen ", b"sixteen ", b"17 ", b"18 ",
            b"19 ", b"20 ", b"21 ", b"22\n\n", b"23\n```\n", b"24\n\n.", b"25",
        ],
        [
            "One two\nthree four five six\n", "```\nseven eight nine ten eleven twelve thirteen\n",
            "fourteen fifteen sixteen 17 18 19 20 21 ", "22\n\n23\n```\n24\n\n.", "25",
        ],
    ),
    "short steps": (
        Sampling(0.0, min_new_tokens=4),
        [b"p", b"!\n\n", b"q", b"?\n\n", b"r", b"s", b"t", b"u", b")\n\n", b"v"],
        ["p!\n\nq?\n\n", "rstu)\n\n", "v"],
    ),
    "plain stop strings": (
        Sampling(0.0, stop=("ки",)),
        [b"Step 1: \xd0", b"\xba\xd0", b"\xb8\n", b"\n\n\n\n", b"w", "ки ки".encode(), b"z"],
        ["Step 1: ки\n", "\n\n\n\nwки ки", "z"],
    ),
}  # fmt: skip
"""By name: how it is sampled, the tokens of a text, and the steps that every engine must make of them."""


@lru_cache(maxsize=1)
def vocabulary() -> tuple[bytes, ...]:
    """The end token, every byte, the start of each script, and the scripts' tokens."""
    found = dict.fromkeys([EOS.encode(), *(bytes([byte]) for byte in range(256))])
    scripted = [token for _, tokens, _ in SCRIPTS.values() for token in tokens]
    assert len(set(scripted)) == len(scripted), "a token has one that follows it"
    found |= dict.fromkeys(start(name) for name in SCRIPTS)
    return tuple(found | dict.fromkeys(scripted))


def start(name: str) -> bytes:
    """The token from which a script goes on."""
    return f"<{name}>".encode()


def followers() -> dict[bytes, bytes]:
    """What follows each token; the end of the text where nothing stands here."""
    found = {}
    for name, (_, tokens, _) in SCRIPTS.items():
        found |= dict(zip([start(name), *tokens], [*tokens, EOS.encode()], strict=True))
    return found


def script_model() -> MarkovModel:
    """The model for engines over known logits."""
    texts = [token.decode("utf-8", "surrogateescape") for token in vocabulary()]
    names = dict(zip(vocabulary(), texts, strict=True))
    rows = {names[token]: {names[after]: 1.0} for token, after in followers().items()}
    return MarkovModel.from_probabilities(texts, rows, {EOS: 1.0})


def build(folder: Path) -> None:
    """The same as a checkpoint: a Llama whose layers add nothing, so that its head reads the last token."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = {byte: character for character, byte in byte_alphabet().items()}
    words = [EOS, *("".join(characters[byte] for byte in token) for token in vocabulary()[1:])]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(folder)
    size = len(words) + -len(words) % 8
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    ids = {token: i for i, token in enumerate(vocabulary())}
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for token, number in ids.items():
            model.lm_head.weight[ids[followers().get(token, EOS.encode())], number] = 1.0
    model.save_pretrained(folder)
