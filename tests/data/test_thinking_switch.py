"""The words that ask for thinking: what prompts say, what answers are learnt, and who obeys."""

from __future__ import annotations

import pytest
from jinja2 import Environment
from test_chat import tokenizer_of

from kascade.data.chat import ChatFormat
from kascade.data.switch import MARK, Place, Switch, switched
from kascade.task import (
    Grade,
    Message,
    Mode,
    Task,
    in_mode,
    switch_shares,
    thought,
    visible_answer,
    with_switch,
)

MODES: tuple[Mode, ...] = ("think", "no_think", "unasked")
SUM = Task(
    "math_with_judge", "math", (Message(role="user", content="2+2?"),), {}, "2+2:4</think>4", thinking=True
)
# As NVIDIA's Nemotron-H reasoning models have it: words of the system turn open or close the block.
NEMOTRON_H = """\
{{ 'System\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{% for m in messages if m.role != 'system' %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}
{% if add_generation_prompt %}{{ 'assistant: ' }}
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if "{'reasoning': True}" in system %}{{ '<think>' }}
{%- elif "{'reasoning': False}" in system %}{{ '<think></think>' }}
{%- endif %}{% endif %}"""


def prompt(chat: ChatFormat, task: Task) -> str:
    return chat.text(chat.prompt_ids(task))


def learnt(chat: ChatFormat, task: Task) -> str:
    return chat.decode(chat.completion_ids(task, task.reference or ""))


def test_a_system_switch_asks_in_the_system_turn_and_the_answer_opens_its_block() -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-2", "system")
    turn = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    on, off, neither = (in_mode(SUM, mode) for mode in MODES)
    assert prompt(chat, on) == f"<|im_start|>system\ndetailed thinking on<|im_end|>\n{turn}"
    assert prompt(chat, off) == f"<|im_start|>system\ndetailed thinking off<|im_end|>\n{turn}"
    assert prompt(chat, neither) == turn
    assert [learnt(chat, task) for task in (on, off, neither)] == [
        "<think>\n2+2:4</think>4",
        "4",
        "<think>\n2+2:4</think>4",
    ]


def test_a_slash_switch_flags_the_last_user_turn_alone() -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-2", "slash")
    turns = (
        Message(role="user", content="a"),
        Message(role="assistant", content="b"),
        Message(role="user", content="c"),
    )
    text = prompt(chat, Task("x", "math", turns, {}, thinking=True))
    assert "user\na<|im_end|>" in text and "user\nc /think<|im_end|>" in text
    assert text.endswith("assistant\n")


@pytest.mark.parametrize("switch", ["system", "slash"])
def test_what_a_row_says_itself_stays_beside_the_switch(switch: Place) -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-2", switch, ("ON", "OFF"))
    turns = (Message(role="system", content="Be brief."), Message(role="user", content="2+2?"))
    text = prompt(chat, Task("x", "math", turns, {}))
    assert ("system\nOFF\nBe brief.<|im_end|>" in text) == (switch == "system")
    assert ("user\n2+2?OFF<|im_end|>" in text) == (switch == "slash")
    asked = (Message(role="system", content="ON"), Message(role="user", content="2+2?"))
    assert ("ON\nOFF" in prompt(chat, Task("x", "math", asked, {}))) is False


def test_the_switch_is_part_of_the_template_so_that_a_checkpoint_and_its_server_have_it() -> None:
    tokenizer = tokenizer_of()
    chat = ChatFormat(tokenizer, "nemotron-cascade-2", "system")
    tokenizer.chat_template = chat.template
    again = ChatFormat(tokenizer, "own", "system")
    assert again.template == chat.template and chat.template.startswith(MARK)
    assert [prompt(again, in_mode(SUM, mode)) for mode in MODES] == [
        prompt(chat, in_mode(SUM, mode)) for mode in MODES
    ]
    served = tokenizer.apply_chat_template(SUM.messages, add_generation_prompt=True, tokenize=False)
    assert served == prompt(chat, in_mode(SUM, "unasked"))


def test_a_template_with_words_of_its_own_is_found_and_used_as_it_is() -> None:
    tokenizer = tokenizer_of()
    tokenizer.chat_template = NEMOTRON_H
    chat = ChatFormat(tokenizer)
    ends = [prompt(chat, in_mode(SUM, mode)).rpartition("assistant: ")[2] for mode in MODES]
    assert ends == ["<think>", "<think></think>", ""]
    assert "{'reasoning': True}" in prompt(chat, in_mode(SUM, "think"))
    assert [chat.opens(in_mode(SUM, mode)) for mode in MODES] == [True, False, False]


def test_a_template_that_only_repeats_the_system_turn_has_no_switch() -> None:
    tokenizer = tokenizer_of()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    assert ChatFormat(tokenizer).template == tokenizer.chat_template


@pytest.mark.parametrize("end", ["<think>\n", "<think>\n\n</think>\n\n", "<think></think>", ""])
def test_whatever_block_a_template_writes_the_prompt_ends_before_it(end: str) -> None:
    source = "{% if add_generation_prompt %}assistant: " + end + "{% endif %}"
    made = Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        switched(source, Switch("system", ("ON", "OFF")))
    )
    assert made.render(messages=[], add_generation_prompt=True) == "assistant: "


def test_quotes_and_breaks_in_words_stay_what_they_are() -> None:
    words = ('say "yes"\n', "say 'no' \\ {{ no }}")
    text = switched("{{ messages[0].content }}", Switch("system", words))
    made = Environment().from_string(text)
    assert made.render(messages=[], enable_thinking=True) == words[0]
    assert made.render(messages=[], enable_thinking=False) == words[1]


def test_modes_make_answers_to_imitate_fit() -> None:
    assert in_mode(SUM, "no_think").reference == "4"
    assert in_mode(SUM, "unasked").reference == SUM.reference
    plain = Task("x", "math", SUM.messages, {}, "4")
    assert in_mode(plain, "think").reference is None, "there is no thinking to learn from"
    assert in_mode(SUM, None) == SUM
    assert len({in_mode(SUM, mode).id for mode in MODES}) == 1, "one question is in one split"


@pytest.mark.parametrize("switch", ["template", "system", "slash"])
@pytest.mark.parametrize(
    ("mode", "answer", "graded", "thinks"),
    [
        ("think", "<think>\n2+2:4</think>4", "4", True),
        ("think", "4", "4", False),
        ("think", "<think></think>4", "4", False),
        ("think", "<think>\nendless", "", True),
        ("no_think", "4", "4", False),
        ("no_think", "<think>2+2:4</think>4", "4", True),
        ("unasked", "<think>2+2:4</think>4", "4", True),
        ("unasked", "4", "4", False),
    ],
)
def test_what_is_graded_and_whether_it_thinks_does_not_depend_on_who_opens_the_block(
    switch: str, mode: Mode, answer: str, graded: str, thinks: bool
) -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-2", switch)  # type: ignore[arg-type]
    task = in_mode(SUM, mode)
    if chat.opens(task):  # the prompt has it already, and an answer that does not think ends it at once
        answer = answer.removeprefix("<think>") if "<think>" in answer else f"</think>{answer}"
    said = chat.said(task, [*chat._encode(answer), chat.end_of_turn])
    assert visible_answer(task, said) == graded
    assert thought(task, said) == thinks


def test_obedience_is_the_share_of_answers_that_think_exactly_if_asked() -> None:
    grades = [Grade(1.0), Grade(0.0)]
    on = with_switch(in_mode(SUM, "think"), ["2+2:4</think>4", "</think>4"], grades)
    off = with_switch(in_mode(SUM, "no_think"), ["4", "<think>hm</think>4"], grades)
    free = with_switch(in_mode(SUM, "unasked"), ["4", "<think>hm</think>4"], grades)
    assert with_switch(SUM, ["4", "4"], grades) == grades, "without a mode nothing is counted"
    shares = switch_shares([grade.components for grade in [*on, *off, *free]])
    assert shares == {"switch_obeyed": 0.5, "thought": 0.5}
    assert switch_shares([grade.components for grade in free]) == {"thought": 0.5}
