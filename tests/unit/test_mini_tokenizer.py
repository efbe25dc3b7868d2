import json
import random

import pytest
from transformers import AutoTokenizer

from search.engines.huggingface.token_bytes import byte_alphabet
from search.mini.problems import format_prompt, problems
from search.mini.solutions import DRAFT_RATES, write_solution
from search.mini.tokenizer import (
    EOS_TOKEN,
    PAD_TOKEN,
    build_tokenizer,
    decode,
    encode,
    save_tokenizer,
    token_id,
    vocab_size,
)


def texts() -> list[str]:
    rng = random.Random(0)
    found = list(problems("train", 60))
    return [format_prompt(p.text) + write_solution(p, rng, DRAFT_RATES).text for p in found]


def token_bytes(token: int) -> bytes:
    back = byte_alphabet()
    return bytes(back[character] for character in build_tokenizer().id_to_token(token))


def test_texts_round_trip_and_tokens_are_their_bytes() -> None:
    for text in texts():
        ids = encode(text)
        assert decode(ids) == text
        assert b"".join(token_bytes(token) for token in ids) == text.encode()


def test_every_word_of_the_family_is_one_token() -> None:
    for text in texts():
        for token in encode(text):
            piece = token_bytes(token).decode()
            assert len(piece) > 1 or not piece.isalpha() or piece == "A"
            assert not piece.isspace() or piece in ("\n", "\n\n")


def test_the_prompt_and_the_solution_are_encoded_apart_as_together() -> None:
    for text in texts():
        prompt, rest = text[: text.index("?") + 3], text[text.index("?") + 3 :]
        assert encode(prompt) + encode(rest) == encode(text)


@pytest.mark.parametrize("text", ["\n\n", "+", "-", " +", " 3", "3", " \\boxed{", "}", EOS_TOKEN, PAD_TOKEN])
def test_signs_are_single_tokens(text: str) -> None:
    assert 0 <= token_id(text) < vocab_size()


@pytest.mark.parametrize("text", ["", "héllo \t wörld\r\n\n\n\n x", "日本 🙂", "buys  She She buys", "\x00\x7f", "' '"])
def test_any_text_round_trips(text: str) -> None:
    assert decode(encode(text)) == text


def test_a_longer_text_is_no_single_token() -> None:
    with pytest.raises(ValueError, match="2 tokens"):
        token_id("+-")


def test_transformers_reads_it_back(tmp_path) -> None:
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == vocab_size()
    assert loaded.eos_token_id == token_id(EOS_TOKEN)
    assert loaded.pad_token_id == token_id(PAD_TOKEN)
    for text in [*texts(), "héllo  She"]:
        ids = loaded(text)["input_ids"]
        assert ids == encode(text)
        assert loaded.decode(ids) == text
