"""Critics: what they are asked, what a label's probability makes of it, and what is said where they answer neither."""

import asyncio
import math

import pytest
import torch
from critics import critic, prompt_of
from markov import STORY_VOCABULARY, LabelModel, story_model
from prm_checkpoints import SPECIALS, STEPS, byte_tokenizer, sizes, tree_of, wrapped
from scoring import rewards_of
from transformers import LlamaConfig, LlamaForCausalLM

from prm.codec import ScorerParts
from prm.critic import LEAST_SHARE, CriticCodec, CriticScorer
from prm.critic_prompt import PROMPTS
from search.api import Search
from search.config import SearchSettings
from search.errors import ConfigError, ScoringError
from search.setup.registry import make_engine, runs_on_engine


def score(scorer, steps=STEPS):
    tree, leaf = tree_of(steps)
    return rewards_of(scorer, tree, [leaf])[0]


# One question


def read(codec, steps=STEPS):
    """All that a critic reads before its label, as text with its control tokens."""
    tree, leaf = tree_of(steps)
    path = tree.path(leaf)
    ids = [*codec.prompt_ids(tree), *(token for node in path[1:] for token in codec.step_ids(tree, node))]
    ids += codec.question_ids(path[-1])
    return codec.tokenizer.raw.decode(ids)


def test_a_chat_template_holds_the_examples_the_problem_the_steps_and_the_question():
    prompt = prompt_of(
        "critic", reply="", opening="{problem} :", step="<{number} {step}>", question="Right?",
        examples=[{"problem": "1+1", "steps": ["It is 2."], "reply": "+"}],
    )  # fmt: skip
    codec = CriticCodec(wrapped(byte_tokenizer("qwen")), prompt)
    assert read(codec, ["So 7."]) == (
        "<|im_start|>user\n1+1 :<1 It is 2.>Right?<|im_end|>\n<|im_start|>assistant\n+<|im_end|>\n"
        "<|im_start|>user\nAnn has 3 pens and buys 4. How many? :<1 So 7.>Right?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_chat_template_it_is_plain_text():
    codec = CriticCodec(wrapped(byte_tokenizer("plain")), prompt_of("critic", opening="{problem}|", step="{step}|"))
    assert read(codec, ["So 7."]).endswith("How many?|So 7.|Is the last step of this solution right? Answer with one "
                                           "word: Yes or No.\n\nAnswer: ")  # fmt: skip


def test_control_tokens_in_problem_and_steps_are_text():
    codec = CriticCodec(wrapped(byte_tokenizer("qwen")), prompt_of("critic"))
    tree, leaf = tree_of(["So <|im_end|> 7."], "What is <|im_start|>?")
    path = tree.path(leaf)
    ids = (*codec.prompt_ids(tree), *codec.step_ids(tree, path[1]))
    assert [one for one in ids if one >= 256] == [257]  # the template's own


def test_thinkprm_is_asked_in_the_words_that_it_was_trained_on():
    codec = CriticCodec(wrapped(byte_tokenizer("qwen")), PROMPTS["thinkprm"].model_copy(
        update={"labels": ("Y", "N"), "verdict": "\nIs the solution correct? "}))  # fmt: skip
    assert read(codec, ["Step 1: It is 3.", "So 7."]) == (
        "<|im_start|>user\nYou are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
        "Ann has 3 pens and buys 4. How many?\n\n[Solution]\n\nStep 1: It is 3.\nStep 2: So 7.\n\nReview and critique "
        "each step in the proposed solution to determine whether each step is correct. If the solution is incomplete, "
        "only verify the provided steps.<|im_end|>\n<|im_start|>assistant\nLet's verify step by step:"
    )
    assert PROMPTS["thinkprm"].stops(2) == ("Is the solution correct?", "</think>", "Step 3:")
    assert CriticScorer.read("critic-cot:launch/ThinkPRM-1.5B").reduce == "last"
    assert CriticScorer.read("critic-cot:Qwen/Qwen3-4B").reduce == "min"


@pytest.mark.parametrize("reward", [0.0, 0.25, 1.0])
def test_the_reward_is_the_share_of_the_right_label(reward):
    assert score(critic(LabelModel(lambda ids: reward))) == pytest.approx(reward, abs=1e-12)


def test_a_step_costs_its_own_tokens_and_the_question():
    scorer = critic(LabelModel())
    tree, _ = tree_of()
    path = [node.id for node in tree.nodes[1:]]

    async def main():
        async with scorer.open(tree) as session:
            for node in path:
                await session.score(tree, [node])
            return session.usage()["prm"], session.num_unique_tokens()

    usage, unique = asyncio.run(main())
    codec = scorer.codec
    whole = len(codec.prompt_ids(tree)) + sum(
        len(codec.step_ids(tree, node)) + len(codec.question_ids(node)) for node in tree.nodes[1:]
    )
    assert usage.computed_tokens == unique == whole
    questions = sum(len(codec.question_ids(node)) for node in tree.nodes[1:])
    assert usage.kv_tokens_held == whole - questions, "questions are given back"


def test_neither_label_is_no_reward_but_one_line():
    for number in (0, 2):
        with pytest.raises(ScoringError, match=r"problem t: the critic fake answers neither '\+' nor '-' to .*: they "
                           "have 0 of the probability"):  # fmt: skip
            score(critic(story_model(), number))


# Critiques


def test_a_critique_is_written_by_seeds_of_the_path_and_its_verdict_is_read():
    first, again = (critic(LabelModel(), 4) for _ in range(2))
    assert score(first) == score(again)
    assert score(first, STEPS[:2]) != score(first)
    (call,) = [call for call in again.engine.calls if call.method == "generate"]
    assert len(call.keys) == 4
    reads = [call for call in again.engine.calls if call.method == "label_logprobs"]
    texts = [again.engine.tokenizer.decode(call.prefix.ids) for call in reads]
    assert len(texts) == 4 and all(text.endswith("Verdict: ") for text in texts)
    # The verdict stands behind the critique, of at most four labels here.
    assert all(len(call.prefix.segments[-2].ids) <= 4 for call in reads)


def test_labels_are_summed_over_the_critiques():
    scorer = critic(LabelModel(), 2)
    answers = iter([(math.log(0.6), math.log(0.2)), (math.log(0.0001), math.log(0.0003))])

    async def given(prefix, labels):
        return next(answers)

    scorer.engine.label_logprobs = given
    assert score(scorer) == pytest.approx(0.6001 / (0.6001 + 0.2003))


def test_a_critique_that_comes_to_its_verdict_by_itself_is_read_there():
    scorer = critic(story_model(answer=1.0), 1, reply="\n\n", verdict="The answer is ")
    seen = []

    async def given(prefix, labels):
        seen.append(scorer.engine.tokenizer.decode(prefix.ids))
        return (0.0, -50.0)

    scorer.engine.label_logprobs = given
    score(scorer)
    assert seen[0].endswith("\n\nThe answer is ") and seen[0].count("The answer is ") == 2  # a step has it, too


def test_what_a_critique_says_beyond_its_end_is_cut_off():
    scorer = critic(story_model(answer=0.0), 1, reply="\n\n", verdict="Verdict: ", stop=["."], max_tokens=9)
    seen = []

    async def given(prefix, labels):
        seen.append(prefix)
        return (0.0, -50.0)

    scorer.engine.label_logprobs = given
    score(scorer)
    critique = scorer.engine.tokenizer.decode(seen[0].segments[-2].ids)
    assert critique.startswith(("Add ", "Take ")) and critique[-1].isdigit()


# By name


def judge(folder, kind="qwen", bias=8.0):
    """A checkpoint of random weights that answers Y or N to everything."""
    torch.manual_seed(3)
    raw = byte_tokenizer(kind)
    raw.save_pretrained(folder)
    model = LlamaForCausalLM(LlamaConfig(**{**sizes(len(raw)), "eos_token_id": 256, "max_position_embeddings": 2048}))
    with torch.no_grad():  # the two labels' rows are near to one common direction, which every state is given
        model.model.norm.weight[0] = bias
        model.model.embed_tokens.weight[:, 0] = 3.0
        model.lm_head.weight[:, 0] = -1.0
        model.lm_head.weight[[ord("Y"), ord("N")], 0] = 1.0
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return judge(tmp_path_factory.mktemp("critic"))


@pytest.fixture
def asks(tmp_path):
    path = tmp_path / "ask.yaml"
    path.write_text("labels: [Y, N]\nmax_tokens: 6\n")
    cot = tmp_path / "cot.yaml"
    cot.write_text('labels: [Y, N]\nmax_tokens: 6\nverdict: "Verdict: "\n')
    return {"critic": str(path), "critic-cot": str(cot)}


@pytest.mark.parametrize("kind", ["critic", "critic-cot"])
def test_by_name_on_the_local_engine(folder, asks, kind):
    name = f"{kind}:{folder}"
    with Search(prm=name, method="beam", width=4, critic_prompt=asks[kind], max_depth=4) as search:
        assert runs_on_engine(name) and search.settings.prm_codec == kind
        assert "labels: [Y, N]" in search.record["critic_prompt"]
        assert ("critic_samples" in search.record) == (kind == "critic-cot")
        result = search.solve("Tom has 9 caps. He buys 4. How many caps are left in the end?")
        again = search.solve("Tom has 9 caps. He buys 4. How many caps are left in the end?")
    scored = [node.reward for node in result.tree if node.reward is not None]
    assert len(scored) >= 4 and len(set(scored)) > 1
    assert scored == pytest.approx([node.reward for node in again.tree if node.reward is not None], abs=1e-6)
    assert set(result.models) == {"policy", "prm"}
    assert (result.models["prm"].sampled_tokens > 0) == (kind == "critic-cot")
    if kind == "critic":
        assert result.stats.prm_tokens == result.stats.prm_unique_tokens


def test_a_critic_of_the_policy_itself_is_loaded_once(folder, asks):
    given = {"method": "beam", "width": 2, "critic_prompt": asks["critic"], "max_tokens": 12, "max_step_tokens": 6}
    with Search(folder, f"critic:{folder}", **given) as search:
        assert search.engines["policy"] is search.engines["prm"]
        assert search.solve("How many?").stats.prm_tokens > 0
    with Search(folder, f"critic:{folder}", prm_max_kv_tokens=4096, **given) as search:
        assert search.engines["policy"] is not search.engines["prm"]


def test_a_router_may_ask_a_critic(folder, asks):
    with Search(
        prm=f"critic:{folder}", writer="arbitrage", router="rsd:0.5", method="beam", width=2, max_depth=3,
        critic_prompt=asks["critic"],
    ) as search:  # fmt: skip
        result = search.solve("Tom has 9 caps. He buys 4. How many caps are left in the end?")
    assert result.stats.num_failed == 0 and {"draft", "target", "prm", "router"} <= set(result.models)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("critic:", {}, "name the model that is asked, critic:PATH_OR_HUB_ID"),
        ("critic-cot:GenPRM/GenPRM-7B", {}, "GenPRM's verdict on a step follows the output of Python code"),
        ("critic:x", {"critic_prompt": "nowhere.yaml"}, "critic_prompt: cannot read 'nowhere.yaml'"),
        ("critic:x", {"critic_prompt": "question: [\n"}, "critic_prompt, line 2: not valid YAML"),
        ("critic:x", {"critic_prompt": "- a: b\n"}, "critic_prompt: must be a mapping; its fields: opening"),
        ("critic:x", {"critic_prompt": "ask: why"}, "critic_prompt: unknown field 'ask'; known: opening"),
        ("critic:x", {"critic_prompt": "step: 'the step'\n"}, r"critic_prompt: step: must have \{step\} somewhere"),
        ("critic:x", {"critic_prompt": "labels: [a]\n"}, "critic_prompt: labels.1: Field required"),
        ("critic:x", {"critic_prompt": "verdict: 'So:'"}, "verdict: critic-cot needs the words"),
        ("critic-cot:x", {"critic_prompt": "verdict: ''"}, "verdict: critic-cot needs the words"),
        ("critic:x", {"critic_samples": 0}, "critic_samples = 0: must be at least 1"),
        ("critic:x", {"prm_codec": "trl"}, "prm_codec 'trl' means nothing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(name, values, message):
    with pytest.raises(ConfigError, match=message):
        Search(prm=name, **values)


def test_labels_of_several_tokens_are_refused(folder):
    settings = SearchSettings(prm=f"critic:{folder}")
    engine = make_engine("local", settings.prm, settings, None)
    try:
        with pytest.raises(ConfigError, match=r"prm critic:.*: label 'Yes' is 3 tokens to this critic"):
            CriticScorer.build(ScorerParts(settings.prm, engine, None, None, {"critic_prompt": None}))
    finally:
        asyncio.run(engine.aclose())
    with pytest.raises(ConfigError, match="labels 'Y' and 'Y' are the same token"):
        CriticCodec(wrapped(byte_tokenizer("qwen")), prompt_of("critic", labels=["Y", "Y"]))


def test_a_template_that_leaves_out_what_a_user_says_is_refused():
    raw = byte_tokenizer("qwen")
    raw.chat_template = "{{ messages[0].role }}"
    with pytest.raises(ConfigError, match="does not show all that a user says"):
        CriticCodec(wrapped(raw), prompt_of("critic"))


def test_a_template_that_has_a_choice_is_asked_not_to_think_before_a_label_and_left_alone_before_a_critique():
    raw = byte_tokenizer("qwen")
    raw.chat_template += "{% if enable_thinking is defined and enable_thinking is false %}<no>{% endif %}"
    assert read(CriticCodec(wrapped(raw), prompt_of("critic"))).endswith("assistant\n<no> ")
    cot = prompt_of("critic-cot", verdict="So: ")
    assert read(CriticCodec(wrapped(raw), cot)).endswith("assistant\n ")


def test_settings_of_critics_are_left_alone_beside_another_reward_model(asks):
    search = Search(prm="mini:prm", critic_samples=2)
    assert "critic_samples" in search.ignored and "critic_samples" not in search.record
    assert LEAST_SHARE < 0.1 and SPECIALS and STORY_VOCABULARY
