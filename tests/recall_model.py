"""A model that answers from what it was told anywhere in a conversation: attention finds a name and copies it."""

from __future__ import annotations

from pathlib import Path

from search.engines.huggingface.token_bytes import byte_alphabet

NAMES = ("Ada", "Eve")
END, ASKED, ANSWER, UNTOLD, CLOSE = "<|end|>", "<|assistant|>", "It is called \\boxed{", "nobody knows", "}."
TEMPLATE = (
    "{% for one in messages %}<|{{ one.role }}|>{{ one.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(folder: Path) -> None:
    """A Llama of one layer, with a chat template; its answer is the name that stands in its context, or that none does.

    Each token has a dimension of its own. The one head's query is of the answer's beginning alone, its keys and values
    are of names alone, and the slowest pair of its rotary dimensions holds both, so that distance does not matter.
    """
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    said = [*NAMES, ANSWER, UNTOLD, CLOSE]
    controls = [END, ASKED, "<|user|>", "<|system|>"]
    words = [*controls, *byte_alphabet()]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in controls])
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in said])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)

    ids = {one: tokenizer.token_to_id(one) for one in (*controls, *said)}
    size = tokenizer.get_vocab_size()
    is_name, asks, recalled = size, size + 1, size + 2
    hidden = -(-(recalled + len(NAMES)) // 8) * 8
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=hidden,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=ids[END],
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    attention = model.model.layers[0].self_attn
    slowest = config.head_dim // 2 - 1
    with torch.no_grad():
        for weights in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, model.lm_head):
            weights.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, hidden))
        model.model.embed_tokens.weight[ids[ANSWER], asks] = 1.0
        attention.q_proj.weight[slowest, asks] = 1.0
        attention.k_proj.weight[slowest, is_name] = 1.0
        for place, name in enumerate(NAMES):
            model.model.embed_tokens.weight[ids[name], is_name] = 1.0
            attention.v_proj.weight[place, ids[name]] = 0.1
            attention.o_proj.weight[recalled + place, place] = 1.0
            model.lm_head.weight[ids[name], recalled + place] = 10.0
        for before, after in ((ASKED, ANSWER), (ANSWER, UNTOLD), (UNTOLD, CLOSE), *((one, CLOSE) for one in NAMES)):
            model.lm_head.weight[ids[after], ids[before]] = 4.0
        model.lm_head.weight[ids[END], ids[CLOSE]] = 4.0
    model.save_pretrained(folder)
