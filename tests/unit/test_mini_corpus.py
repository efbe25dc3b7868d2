import math

import torch

from search.mini.checker import check_steps, split_steps
from search.mini.corpus import (
    checked_document,
    drill_documents,
    label_batch,
    policy_documents,
    prm_documents,
    solution_batch,
)
from search.mini.model import MiniModel, ModelShape, grown, initialise
from search.mini.problems import format_prompt, problem
from search.mini.sample import step_rewards
from search.mini.solutions import TARGET_RATES
from search.mini.tokenizer import decode, encode, token_id, vocab_size


def tiny() -> MiniModel:
    model = MiniModel(ModelShape(vocab_size(), 2, 32, 2, 64))
    initialise(model, 0)
    return model


def test_a_chunk_is_decided_by_its_number() -> None:
    first = policy_documents("target/0", 1, 20, TARGET_RATES)
    assert first == policy_documents("target/0", 1, 20, TARGET_RATES)
    assert first != policy_documents("target/0", 2, 20, TARGET_RATES)
    assert first != policy_documents("target/1", 1, 20, TARGET_RATES)


def test_documents_end_their_steps_at_separators_and_the_end_token() -> None:
    for document in [*prm_documents("prm/0", 0, 30), *drill_documents("prm/0", 0, 10)]:
        assert len(document.ends) == len(document.labels)
        last = [document.ids[end] for end in document.ends]
        assert last == [token_id("\n\n")] * (len(last) - 1) + [token_id("<|end|>")]
        assert decode(list(document.ids[: document.num_prompt_tokens])).endswith("?\n\n")


def test_half_of_the_tempting_steps_of_drills_are_wrong() -> None:
    labels = [label for document in drill_documents("prm/0", 3, 200) for label in document.labels[:-1]]
    assert 0.25 < 1 - sum(labels) / len(labels) < 0.6


def test_a_policy_batch_counts_the_solutions_tokens_alone() -> None:
    documents = policy_documents("target/0", 0, 4, TARGET_RATES)
    batch = solution_batch(documents)
    count = sum(len(document.ids) - document.num_prompt_tokens for document in documents)
    assert len(batch.wanted) == len(batch.targets) == count
    assert math.isclose(float(batch.weights.sum()), 1.0, rel_tol=1e-5)
    flat = batch.ids.flatten()
    assert torch.equal(flat[batch.wanted + 1], batch.targets)


def test_a_prm_batch_counts_labels_and_the_words_of_right_steps() -> None:
    documents = drill_documents("prm/0", 0, 6)
    batch = label_batch(documents, writing_weight=0.5)
    labels = [label for document in documents for label in document.labels]
    wanted = [token_id("+") if label else token_id("-") for label in labels]
    assert batch.targets[: len(labels)].tolist() == wanted
    assert math.isclose(float(batch.weights.sum()), 1.5, rel_tol=1e-5)
    flat = batch.ids.flatten()
    words = slice(len(labels), None)
    assert torch.equal(flat[batch.wanted[words] + 1], batch.targets[words])
    assert not set(batch.wanted[: len(labels)].tolist()) & set(batch.wanted[words].tolist())
    assert len(label_batch(documents).wanted) == len(labels)


def test_a_models_own_solution_is_labelled_by_the_checker() -> None:
    found = problem("dev", 0)
    text = "She buys\n\nThe answer is \\boxed{1}."
    ids = [*encode(text), token_id("<|end|>")]
    document = checked_document(found, ids, text)
    assert document is not None
    assert document.labels == tuple(v.right for v in check_steps(found, split_steps(text)).steps)
    assert checked_document(found, encode("\n\n\n\nx"), "\n\n\n\nx") is None


def test_more_layers_change_nothing_at_first() -> None:
    model = tiny()
    ids = torch.tensor([encode(format_prompt(problem("dev", 0).text))])
    with torch.inference_mode():
        assert torch.equal(model(ids), grown(model, 4, 1)(ids))


def test_a_reward_is_the_share_of_plus_at_the_steps_last_token() -> None:
    model = tiny()
    documents = prm_documents("prm/0", 0, 5)
    rewards = step_rewards(model, documents)
    good, bad = token_id("+"), token_id("-")
    for document, found in zip(documents, rewards, strict=True):
        with torch.inference_mode():
            chances = torch.softmax(model(torch.tensor([document.ids]))[0], -1)
        for end, reward in zip(document.ends, found, strict=True):
            plus, minus = float(chances[end, good]), float(chances[end, bad])
            assert abs(reward - plus / (plus + minus)) < 1e-5
