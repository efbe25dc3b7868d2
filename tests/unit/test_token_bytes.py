"""Stops and texts over three kinds of tokenizers."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from search.engines.huggingface.token_bytes import TokenBytes, byte_alphabet
from search.engines.huggingface.tokenizer import HFTokenizer
from search.engines.stops import StopRule
from search.types import Prefix, Sampling, Segment

EOS = "</s>"


def byte_level() -> PreTrainedTokenizerFast:
    """Bytes, and merges that put a stop's parts into longer tokens."""
    vocab = dict(byte_alphabet())
    merges = [("Ċ", "Ċ"), ("a", "Ċ"), ("Ċ", "b"), ("#", "#")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(EOS, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Unigram pieces with a marked space, and single bytes for the rest."""
    pieces = ["<unk>", EOS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁one", "▁two", "a", "b", "end", "##"]
    inner = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], 0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([AddedToken(EOS, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)


def word_level() -> PreTrainedTokenizerFast:
    """Whole words; the spaces between them are nobody's token."""
    words = ["<unk>", EOS, "one", "two", "a", "b", "end", "##", "."]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(EOS, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS, unk_token="<unk>")


def ended(raw: PreTrainedTokenizerFast, stops: tuple[str, ...], ids: list[int]) -> int | None:
    """How many tokens are written before a stop, fed one by one."""
    rule = StopRule(TokenBytes(raw, len(raw)), stops, frozenset())
    sampling = Sampling(stop=stops)
    number, finish = rule.find_end(rule.begin(Prefix("t", (Segment(0, (0,)),))), (), ids, sampling)
    return None if finish is None else number


def tokens(raw: PreTrainedTokenizerFast, *texts: str) -> list[int]:
    ids = raw.convert_tokens_to_ids(list(texts))
    assert None not in ids
    return ids


def test_byte_level_stops_inside_over_and_at_tokens():
    raw = byte_level()
    assert ended(raw, ("\n\n",), tokens(raw, "a", "ĊĊ", "b")) == 2
    assert ended(raw, ("\n\n",), tokens(raw, "aĊ", "Ċb", "b")) == 2, "over two tokens, text before and after"
    assert ended(raw, ("\n\n",), tokens(raw, "Ċ", "a", "Ċ", "b")) is None
    assert ended(raw, ("\n\n",), tokens(raw, "Ċ", "Ċ", "b", "Ċ", "Ċ")) == 5, "a blank line before anything is no step"
    assert ended(raw, ("###", "zz"), tokens(raw, "##", "a", "##", "#", "z")) == 4
    assert ended(raw, ("é",), tokens(raw, "Ã", "a", "Ã", "©")) == 4, "a stop of two bytes, one in each token"
    assert ended(raw, (EOS,), [*tokens(raw, "a"), raw.eos_token_id]) == 2, "a stop that is a special token"
    assert ended(raw, (), tokens(raw, "a", "ĊĊ")) is None


def test_sentence_piece_stops_by_bytes_and_by_spaces():
    raw = sentence_piece()
    assert ended(raw, ("\n\n",), tokens(raw, "a", "<0x0A>", "<0x0A>", "b")) == 3
    assert ended(raw, (" one",), tokens(raw, "a", "▁one", "b")) == 2
    assert ended(raw, ("b two",), tokens(raw, "b", "▁two")) == 2
    assert ended(raw, ("nd#",), tokens(raw, "end", "##", "a")) == 2


def test_word_level_stops():
    raw = word_level()
    assert ended(raw, ("end",), tokens(raw, "one", "end", "two")) == 2
    assert ended(raw, ("a b",), tokens(raw, "a", "a", "b")) == 3


@pytest.mark.parametrize("make", [byte_level, sentence_piece, word_level])
def test_texts_of_pieces_are_the_text_of_the_whole(make):
    raw = make()
    table = TokenBytes(raw, len(raw) + 5)
    tokenizer = HFTokenizer(raw, table, frozenset({raw.eos_token_id}))
    ids = tokenizer.encode("one two ab end ## one")
    assert tokenizer.decode(ids).split() == raw.decode(ids, skip_special_tokens=True).split()
    for at in range(len(ids)):
        assert tokenizer.decode(ids[:at]) + tokenizer.decode(ids[at:]) == tokenizer.decode(ids)
    assert tokenizer.decode([*ids, raw.eos_token_id]) == tokenizer.decode(ids), "no special token in a text"
    assert tokenizer.encode(f"one{EOS}")[-1] == raw.eos_token_id
    assert len(table.text) == len(raw) + 5, "ids beyond the tokenizer's have no text"


def test_broken_characters_are_replaced():
    raw = byte_level()
    table = TokenBytes(raw, len(raw))
    assert table.join(tokens(raw, "a", "Ã")) == "a�"
    assert table.join(tokens(raw, "Ã", "©")) == "é"
