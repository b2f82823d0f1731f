"""Append-only conversations against the templates rendered in one go: where both agree, and where not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kascade.data.chat import ChatFormat
from kascade.data.conversation import Conversation, demonstration
from kascade.environments.rows.tool_calls import parse_tool_calls
from kascade.task import Message, Task

SPECIAL = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
CALL = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token; chat marks are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )


TOKENIZER = byte_tokenizer()
CHATS = {name: ChatFormat(TOKENIZER, name) for name in ("nemotron-cascade-1", "nemotron-cascade-2")}  # type: ignore[arg-type]
C1, C2 = CHATS["nemotron-cascade-1"], CHATS["nemotron-cascade-2"]


def task_of(*messages: Message, thinking: bool = False, tools: bool = True) -> Task:
    return Task("math", "math", messages, {}, thinking=thinking, tools=(TOOL,) if tools else ())


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def result(text: str) -> Message:
    return {"role": "tool", "content": text}


def one_go(chat: ChatFormat, task: Task, turns: list[Message]) -> list[int]:
    """The template's own rendering, up to where the next answer starts."""
    return chat.prompt_ids(Task("math", "math", (*task.messages, *turns), {}, tools=task.tools))


def grown(chat: ChatFormat, task: Task, turns: list[Message], last: list[Message]) -> Conversation:
    conversation = demonstration(chat, task, turns)
    conversation.add_context(chat, last, thinking=task.thinking)
    return conversation


def text_of(chat: ChatFormat, ids: list[int]) -> str:
    return chat.text(ids)


# The answer as the second generation's history writes it: a line break after the empty think block.
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n<>"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(plain, plain, st.lists(plain, min_size=1, max_size=3), plain)
def test_cascade_2_without_thinking_is_what_the_template_renders(
    question: str, answer: str, results: list[str], again: str
) -> None:
    task = task_of({"role": "system", "content": "Be brief."}, user(question))
    turns = [said(f"\n{answer}"), *map(result, results), said(f"\n{again}")]
    assert grown(C2, task, turns, [user("on")]).token_ids == one_go(C2, task, [*turns, user("on")])


def test_cascade_2_renders_calls_as_the_policy_writes_them() -> None:
    task = task_of(user("1?"))
    as_field: Message = {
        "role": "assistant",
        "content": "\nLet me add.",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
    written = grown(C2, task, [said(f"\nLet me add.\n{CALL}")], [result("2"), result("3")])
    assert written.token_ids == one_go(C2, task, [as_field, result("2"), result("3")])
    (call,) = parse_tool_calls(CALL)
    assert (call.name, call.arguments) == ("add", {"a": 1})
    text = text_of(C2, written.token_ids)
    tail = "<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response><|im_end|>"
    assert f"<|im_start|>user\n{tail}\n<|im_start|>assistant\n<think></think>" in text
    assert "<|im_start|>tool" not in text
    assert text.startswith('<|im_start|>system\n<tools>\n{"type": "function", "name": "add"')


def test_thoughts_stay_where_the_template_would_drop_them() -> None:
    task = task_of(user("1?"), thinking=True)
    turns = [said("hmm</think>\none")]
    kept = text_of(C2, grown(C2, task, turns, [result("2")]).token_ids)
    dropped = text_of(C2, one_go(C2, task, [*turns, result("2")]))
    assert kept.count("hmm") == 1 and dropped.count("hmm") == 0
    # Beyond the thought, the two differ in nothing but the mode of the answer to come.
    assert kept.replace("<think>\nhmm</think>", "<think></think>", 1).removesuffix("<think>\n") == (
        dropped.removesuffix("<think></think>")
    )


def test_cascade_1_flags_of_earlier_turns_stay_as_they_were_read() -> None:
    task = task_of(user("1?"), thinking=True, tools=False)
    kept = text_of(C1, grown(C1, task, [said("hmm</think>\none")], [user("2?")]).token_ids)
    assert kept.count(" /think") == 2 and " /no_think" not in kept
    history = (*task.messages, said("hmm</think>\none"), user("2?"))
    rewritten = text_of(C1, C1.prompt_ids(Task("math", "math", history, {}, thinking=True)))
    assert "1? /no_think" in rewritten and "2? /think" in rewritten and "hmm" not in rewritten


def test_cascade_1_keeps_the_mode_of_a_turn_whose_tools_are_still_at_work() -> None:
    history = (user("0?"), said("zero"), user("1?"), said(CALL), result("2"))
    text = text_of(C1, C1.prompt_ids(Task("math", "math", history, {}, thinking=True)))
    assert "0? /no_think" in text and "1? /think" in text
    assert "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>" in text


@pytest.mark.parametrize("name", CHATS)
def test_only_answers_are_learnt_from(name: str) -> None:
    chat = CHATS[name]
    task = task_of(user("1?"), thinking=True)
    conversation = demonstration(chat, task, [said("a</think>\nb"), result("c"), user("d"), said("e")])
    learnt = [run.text for run in conversation.runs(chat) if run.learnt]
    assert learnt == ["a</think>\nb<|im_end|>", "e<|im_end|>"]
    assert "".join(run.text for run in conversation.runs(chat)) == chat.text(conversation.token_ids)
    assert len(conversation.logprobs) == sum(conversation.learnt)
    tokens, mask = conversation.after(len(conversation.prompt_ids))
    assert [*conversation.prompt_ids, *tokens] == conversation.token_ids
    assert len(tokens) == len(mask) and mask[0]


def test_an_answer_that_ended_otherwise_is_closed_by_context() -> None:
    conversation = Conversation(tuple(C2.prompt_ids(task_of(user("1?")))))
    end_of_text = TOKENIZER.convert_tokens_to_ids("<|endoftext|>")
    conversation.add_answer([50, end_of_text], [-1.0, -2.0])
    conversation.add_context(C2, [user("2?")], thinking=False)
    tokens, mask = conversation.after(len(conversation.prompt_ids))
    assert tokens[1:3] == (end_of_text, C2.end_of_turn)
    assert mask[:3] == (True, True, False)


def test_tokens_are_never_made_again() -> None:
    """Sampled ids that no encoder would choose survive the next turn as they are."""
    odd = [C2._encode("a")[0], C2._encode("<")[0], C2._encode("|")[0], C2.end_of_turn]
    conversation = Conversation(tuple(C2.prompt_ids(task_of(user("1?")))))
    conversation.add_answer(odd, [0.0] * 4)
    before = list(conversation.token_ids)
    conversation.add_context(C2, [result("x")], thinking=True)
    assert conversation.token_ids[: len(before)] == before


@pytest.mark.parametrize("turns", [[user("a")], [result("a"), said("b")], [said("a"), said("b")]])
def test_malformed_demonstrations_are_refused(turns: list[Message]) -> None:
    if turns == [user("a")]:
        assert not any(demonstration(C2, task_of(user("1?")), turns).learnt)
        return
    with pytest.raises(ValueError, match="assistant turn"):
        demonstration(C2, task_of(user("1?")), turns)


def test_a_token_without_its_log_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="log-probabilities"):
        Conversation((1,)).add_answer([1, 2], [0.0])
