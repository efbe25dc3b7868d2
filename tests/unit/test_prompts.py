"""Prompts for models with and without chat templates, and what a person may put in place of a format's parts."""

import asyncio
import hashlib

import pytest
from fake_engine import FakeEngine
from prm_checkpoints import byte_tokenizer, wrapped
from transformers import AutoTokenizer

from search.config import SearchSettings, build
from search.errors import ConfigError
from search.loop.driver import Driver, Limits
from search.loop.writer import ModelWriter
from search.policies import Rebase
from search.prompt.conversation import Turn, as_problem
from search.prompt.prompts import PromptRenderer, choose_format
from search.prompt.template import PromptTemplate
from search.setup.registry import model_path
from search.types import NodeStatus, Problem

EXAMPLES = [{"question": "2 + 2?", "answer": "It is 4."}, {"question": "3 + 3?", "answer": "It is 6."}]


class Tokenizer:
    """As far as prompts need one."""

    controls = tags = frozenset()

    def __init__(self, template=None, start=""):
        self.template, self.start = template, start

    def encode(self, text):
        return tuple(text.encode())

    def chat(self, messages, options=None):
        return None if self.template is None else self.template(messages)


def rendered(tokenizer, question="1 + 1?", **settings):
    return PromptRenderer(build(SearchSettings, settings), tokenizer).render(question)


def text(tokenizer, question="1 + 1?", **settings):
    return rendered(tokenizer, question, **settings).text


def roles(messages):
    return "|".join(f"{one['role']}: {one['content']}" for one in messages)


def no_system(messages):
    if messages[0]["role"] == "system":
        raise ConfigError("no system role")
    return roles(messages)


def test_a_template_is_used_where_there_is_one():
    tokenizer = Tokenizer(roles)
    assert choose_format("auto", tokenizer) == "chat"
    assert choose_format("plain", tokenizer) == "plain"
    assert text(tokenizer, prompt="chat").startswith("system: Solve the problem step by step.")


def test_a_template_without_a_system_role_gets_it_all_from_the_user():
    prompt = text(Tokenizer(no_system), prompt="chat")
    assert prompt.startswith("user: Solve the problem step by step.") and prompt.endswith("1 + 1?")


def test_plain_prompts_begin_as_the_models_texts_do():
    tokenizer = Tokenizer(start="<s>")
    assert choose_format("auto", tokenizer) == "plain"
    prompt = text(tokenizer, prompt="plain")
    assert prompt.startswith("<s>Solve") and "Problem: 1 + 1?" in prompt and prompt.endswith("\n\n")
    with pytest.raises(ConfigError, match="no chat template"):
        choose_format("chat", tokenizer)


def chatml(messages):
    """Qwen2.5-Math's template: a system prompt of its own where none is given."""
    if messages[0]["role"] != "system":
        own = "Please reason step by step, and put your final answer within \\boxed{}."
        messages = [{"role": "system", "content": own}, *messages]
    turns = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    return turns + "<|im_start|>assistant\n"


def llama(messages):
    turns = "".join(
        f"<|start_header_id|>{one['role']}<|end_header_id|>\n\n{one['content']}<|eot_id|>" for one in messages
    )
    return turns + "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.mark.parametrize(("template", "name"), [(chatml, "qwen-math"), (llama, "llama-3"), (roles, "chat")])
def test_auto_knows_a_family_by_its_template(template, name):
    assert choose_format("auto", Tokenizer(template)) == name


def test_each_family_is_asked_in_its_own_way():
    qwen = text(Tokenizer(chatml), prompt="qwen-math")
    assert qwen == chatml([{"role": "user", "content": "1 + 1?"}]), "its own system prompt, and nothing else"
    assert "## Step n: " in text(Tokenizer(llama), prompt="llama-3")
    assert text(Tokenizer(None, "<s>"), prompt="math-shepherd") == "<s>1 + 1?\n"
    assert text(Tokenizer(roles), prompt="mini") == "user: 1 + 1?"
    shepherd = PromptRenderer(SearchSettings(prompt="math-shepherd"), Tokenizer())
    assert shepherd.style.stop == ("ки",) and shepherd.style.final == ("The answer is",)


@pytest.mark.parametrize("name", ["qwen-math", "llama-3", "mini"])
def test_a_family_that_needs_a_template_says_so(name):
    with pytest.raises(ConfigError, match=f"prompt {name}: this model's tokenizer has no chat template"):
        choose_format(name, Tokenizer())
    assert choose_format("math-shepherd", Tokenizer()) == "math-shepherd"


def test_an_unknown_format_is_named():
    with pytest.raises(ConfigError, match="unknown prompt format 'qwen'"):
        choose_format("qwen", Tokenizer(roles))


def test_a_final_phrase_ends_a_trajectory():
    def steps(**limits):
        driver = Driver(Rebase(), ModelWriter(FakeEngine()), None, width=4, limits=Limits(max_depth=4, **limits))
        return list(asyncio.run(driver.solve(Problem("p", "Add 3.\n\n"), "Add 3.\n\n")).tree)[1:]

    phrase = next(node.text for node in steps() if node.depth == 1 and node.status is NodeStatus.EXPANDED)
    found = [node for node in steps(final=(phrase,)) if phrase in node.text]
    assert found and all(node.status is NodeStatus.FINISHED for node in found)
    assert {"final answer"} <= {node.reason for node in found}


QUESTIONS = (
    "Ann has 35 books.  She buys 19 more.\nHow many books are there now?",
    "Let $x^2 < 5$ & \\frac{1}{2} — ½ √7?\n\n  Find x. ",
    "a <b> c </b> [INST] <|x|> 你好",
)
NAMES = ("auto", "chat", "plain", "mini", "qwen-math", "llama-3", "math-shepherd")
GOLDEN = {
    "mini": "e34ae9838df5 e34ae9838df5 92acca3e29a4 e34ae9838df5 e34ae9838df5 e34ae9838df5 f394dfba8dd5",
    "plain": "627fff4dfb9f refused 627fff4dfb9f refused refused refused a360d797a4cd",
    "qwen": "1ca701c5b6d4 1ca701c5b6d4 627fff4dfb9f b28ca005d7b9 24d2dbefece0 1380520b602b a360d797a4cd",
    "llama": "bca6762ec437 ee9ae741cca5 627fff4dfb9f 87b4a062baf0 4b85c738c5dc bca6762ec437 a360d797a4cd",
}
"""Of texts and ids, by tokenizer and format, from before prompts could be changed: presets are what they were."""


@pytest.mark.parametrize("family", GOLDEN)
def test_the_named_formats_give_the_ids_they_always_gave(family):
    raw = AutoTokenizer.from_pretrained(model_path("mini:target")) if family == "mini" else byte_tokenizer(family)
    found = []
    for name in NAMES:
        digest = hashlib.blake2b(digest_size=6)
        try:
            for question in QUESTIONS:
                prompt = rendered(wrapped(raw), question, prompt=name)
                digest.update(repr((prompt.text, prompt.ids)).encode())
            found.append(digest.hexdigest())
        except ConfigError:
            found.append("refused")
    assert found == GOLDEN[family].split()


def test_a_system_prompt_stands_in_place_of_the_formats_own():
    assert text(Tokenizer(roles), system_prompt="Be brief.") == "system: Be brief.|user: 1 + 1?"
    assert text(Tokenizer(roles), system_prompt="") == "user: 1 + 1?"
    assert text(Tokenizer(), system_prompt="Be brief.").startswith("Be brief.\n\nProblem: 1 + 1?")
    assert text(Tokenizer(no_system), system_prompt="Be brief.") == "user: Be brief.\n\n1 + 1?"
    assert text(Tokenizer(roles), system_prompt="@@home").startswith("system: @home|")


def test_examples_come_before_the_question_in_the_formats_own_shape():
    chat = text(Tokenizer(roles), few_shot=EXAMPLES, system_prompt="S")
    assert chat == ("system: S|user: 2 + 2?|assistant: It is 4.|user: 3 + 3?|assistant: It is 6.|user: 1 + 1?")
    plain = text(Tokenizer(start="<s>"), few_shot=EXAMPLES[:1], system_prompt="S")
    assert plain == "<s>S\n\nProblem: 2 + 2?\n\nSolution:\n\nIt is 4.\n\nProblem: 1 + 1?\n\nSolution:\n\n"
    first = text(Tokenizer(no_system), few_shot=EXAMPLES[:1], system_prompt="S")
    assert first == "user: S\n\n2 + 2?|assistant: It is 4.|user: 1 + 1?"


def test_a_prefix_of_the_assistants_turn_ends_the_prompt():
    assert text(Tokenizer(roles), assistant_prefix="<think>\n").endswith("user: 1 + 1?<think>\n")
    reader = wrapped(byte_tokenizer("qwen"))
    assert rendered(reader, assistant_prefix="<|im_end|>").ids[-1] == reader.encode("<|im_end|>")[0], (
        "a person's own control token"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"system_prompt": "Be brief."}, "system_prompt: this model's chat template leaves it out"),
        ({"few_shot": EXAMPLES}, "few_shot: this model's chat template leaves it out"),
    ],
)
def test_what_a_chat_template_drops_is_said(settings, message):
    last = Tokenizer(lambda messages: messages[-1]["content"])
    with pytest.raises(ConfigError, match=message):
        rendered(last, **settings)
    assert text(last) == "1 + 1?", "an instruction of the format's own may be left out"


@pytest.mark.parametrize(
    "template",
    [
        "{% for one in messages %}{{ one.content[0].text }}{% endfor %}Go",
        "{% for one in messages %}{% for part in one.content %}{{ part.text }}{% endfor %}{% endfor %}Go",
        "{% for one in messages %}{{ one.content[:3] }}{% endfor %}Go",
        "Go",
        "  ",
    ],
    ids=["parts", "many parts", "cut", "no content", "blank"],
)
def test_a_chat_template_that_leaves_the_problem_out_is_refused(template):
    raw = byte_tokenizer("qwen")
    raw.chat_template = template
    for name in ("chat", "auto"):
        with pytest.raises(ConfigError, match=r"this model's chat template leaves the problem out.*--prompt plain"):
            rendered(wrapped(raw), prompt=name)
    assert "1 + 1?" in text(wrapped(raw), prompt="plain")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for one in range(1000000000) %}x{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ messages.nothing.more }}", "no attribute 'nothing'"),
    ],
)
def test_a_chat_template_that_fails_is_named(template, said):
    raw = byte_tokenizer("qwen")
    raw.chat_template = template
    with pytest.raises(ConfigError, match=f"the model's chat template refuses this conversation: .*{said}"):
        rendered(wrapped(raw), prompt="chat")


def test_a_template_has_the_question_the_examples_and_the_chat_template_at_hand():
    template = (
        "{% for one in examples %}Q: {{ one.question }} A: {{ one.answer }}\n{% endfor %}"
        "{{ chat([{'role': 'user', 'content': system ~ '/' ~ question}]) }}"
    )
    settings = {"prompt_template": template, "few_shot": EXAMPLES, "system_prompt": "S"}
    assert text(Tokenizer(roles), **settings) == "Q: 2 + 2? A: It is 4.\nQ: 3 + 3? A: It is 6.\nuser: S/1 + 1?"
    assert text(Tokenizer(start="<s>"), prompt_template="{{ start }}[{{ question }}]") == "<s>[1 + 1?]"
    assert text(Tokenizer(roles), prompt_template="{{ system }} {{ question }}").startswith("Solve the problem")


def test_a_templates_own_control_tokens_are_real_and_the_questions_are_not():
    reader = wrapped(byte_tokenizer("qwen"))
    prompt = rendered(reader, "<|im_end|>?", prompt_template="<|im_start|>{{ question | tojson }}<|im_end|>")
    ids = list(prompt.ids)
    assert (ids.count(257), ids.count(258)) == (1, 1) and ids[-1] == 258
    assert prompt.text == '<|im_start|>"\\u003c|im_end|\\u003e?"<|im_end|>'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Hello\n{{ question", "prompt_template, line 2: unexpected end of template"),
        ("{{ question }}\n{% if %}", "prompt_template, line 2: "),
        ("{{ question }}\n\n{{ problem }}", "prompt_template, line 3: unknown variable 'problem'; known: question, "),
        ("{% for one in few %}{{ question }}{% endfor %}", "line 1: unknown variable 'few'"),
        ("{{ question }}{{ system | shout }}", "line 1: No filter named 'shout'"),
        ("{{ system }}", "leaves the question out"),
        ("{# {{ question }} #}{{ start }}", "leaves the question out"),
    ],
)
def test_a_wrong_template_is_named_with_its_line(template, message):
    with pytest.raises(ConfigError, match=message) as raised:
        PromptTemplate.parse(template)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ question }}\n{{ examples[0].question }}", "prompt_template, line 2: "),
        ("{{ question }}{{ 1 / 0 }}", "line 1: division by zero"),
        ("{{ question }}\n{{ question.__class__ }}", "line 2: access to attribute '__class__'"),
        ("{{ question }}{% include 'x' %}", "prompt_template, line 1: "),
        ("{{ chat([{'role': 'user', 'content': question}]) }}", "prompt_template calls chat, and this model's tok"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named_with_its_line(template, message):
    with pytest.raises(ConfigError, match=message):
        rendered(Tokenizer(), prompt_template=template)


def test_chat_options_reach_the_template_and_no_other_place():
    raw = byte_tokenizer("qwen")
    raw.chat_template += "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    assert text(wrapped(raw), chat_options={"enable_thinking": False}).endswith("<think></think>")
    assert not text(wrapped(raw), chat_options={"enable_thinking": True}).endswith("<think></think>")
    called = "{{ chat([{'role': 'user', 'content': question}], enable_thinking=false) }}"
    assert text(wrapped(raw), prompt_template=called).endswith("<think></think>")
    for name in ("enable_thoughts", "tokenize", "messages", "chat_template"):
        with pytest.raises(ConfigError, match=f"chat option {name!r}: the model's chat template reads no such option"):
            text(wrapped(raw), chat_options={name: True})
    raw.chat_template += "{% if depth is defined %}{{ depth + 1 }}{{ raise_exception('no depth') }}{% endif %}"
    with pytest.raises(ConfigError, match="chat template refuses depth=a: "):
        text(wrapped(raw), chat_options={"depth": "a"})
    with pytest.raises(ConfigError, match="no depth"):
        text(wrapped(raw), chat_options={"depth": 1})


def test_chat_options_without_a_chat_template_are_refused():
    for settings in ({}, {"prompt": "plain"}, {"prompt_template": "{{ question }}"}):
        what = "prompt_template" if "prompt_template" in settings else "prompt plain"
        with pytest.raises(ConfigError, match=f"chat_options: {what} uses no chat template"):
            rendered(Tokenizer(roles if settings else None), chat_options={"depth": 1}, **settings)


def test_an_empty_or_broken_problem_is_refused():
    with pytest.raises(ConfigError, match="the problem is empty"):
        rendered(Tokenizer(), " \n")
    with pytest.raises(ConfigError, match="not valid Unicode"):
        rendered(Tokenizer(), "\ud800")


# Conversations

CONVERSATION = [
    Turn("system", "Count in dozens."),
    Turn("user", "I have 3 eggs."),
    Turn("assistant", "That is a quarter."),
    Turn("user", "I buy 9."),
    Turn("assistant", "Now it is one."),
]


def spoken(tokenizer, earlier=CONVERSATION, question="How many?", **settings):
    return PromptRenderer(build(SearchSettings, settings), tokenizer).render(question, earlier)


def test_all_turns_of_a_conversation_reach_the_model_and_a_first_system_joins_the_instruction():
    prompt = spoken(Tokenizer(roles), system_prompt="S", few_shot=EXAMPLES[:1])
    assert prompt.text == (
        "system: S\n\nCount in dozens.|user: 2 + 2?|assistant: It is 4.|user: I have 3 eggs.|"
        "assistant: That is a quarter.|user: I buy 9.|assistant: Now it is one.|user: How many?"
    )
    assert prompt.num_left_out == 0
    plain = spoken(Tokenizer(start="<s>"), system_prompt="").text
    assert plain == (
        "<s>Count in dozens.\n\nProblem: I have 3 eggs.\n\nSolution:\n\nThat is a quarter.\n\n"
        "Problem: I buy 9.\n\nSolution:\n\nNow it is one.\n\nProblem: How many?\n\nSolution:\n\n"
    )
    own = "{% for turn in turns %}{{ turn.role }}={{ turn.content }};{% endfor %}{{ system }}?{{ question }}"
    assert spoken(Tokenizer(), CONVERSATION[:2], prompt_template=own, system_prompt="S").text == (
        "user=I have 3 eggs.;S\n\nCount in dozens.?How many?"
    )


def strict(messages):
    """As Mistral's and Gemma's templates: no system, and the two take turns."""
    for index, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[index % 2]:
            raise ConfigError("roles must alternate")
    return roles(messages)


def test_a_template_that_knows_no_system_and_no_two_turns_in_a_row_gets_them_as_one():
    earlier = [*CONVERSATION[:3], Turn("system", "Be quick."), Turn("user", "I buy 9.")]
    prompt = spoken(Tokenizer(strict), earlier, system_prompt="S")
    assert prompt.text == (
        "user: S\n\nCount in dozens.\n\nI have 3 eggs.|assistant: That is a quarter.|"
        "user: Be quick.\n\nI buy 9.\n\nHow many?"
    )
    with pytest.raises(ConfigError, match="roles must alternate"):
        spoken(Tokenizer(strict), [Turn("assistant", "I begin.")], system_prompt="")


def test_turns_that_a_template_leaves_out_are_counted_whatever_they_say():
    last = Tokenizer(lambda messages: messages[-1]["content"])
    assert spoken(last, question="I have 3 eggs. How many?").num_left_out == len(CONVERSATION)
    own = spoken(Tokenizer(roles), prompt_template="{{ question }}")
    assert (own.text, own.num_left_out) == ("How many?", len(CONVERSATION))


def test_control_tokens_in_a_turn_are_text():
    reader = wrapped(byte_tokenizer("qwen"))
    ids = spoken(reader, [Turn("user", "<|im_end|>"), Turn("assistant", "<|im_start|>")]).ids
    plain = spoken(reader, [Turn("user", "a"), Turn("assistant", "b")]).ids
    assert [ids.count(token) for token in (257, 258)] == [plain.count(token) for token in (257, 258)]
    with pytest.raises(ConfigError, match="earlier turn of the conversation is not valid Unicode"):
        spoken(reader, [Turn("user", "\ud800")])


def test_who_judges_steps_reads_a_conversation_as_one_problem():
    told = as_problem(CONVERSATION[:3], "How many?")
    assert told == "User: I have 3 eggs.\n\nAssistant: That is a quarter.\n\nUser: How many?"
    assert as_problem(CONVERSATION[:1], "How many?") == as_problem([], "How many?") == "How many?"
