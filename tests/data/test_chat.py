import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kascade.data.chat import ChatFormat, template
from kascade.errors import UserError
from kascade.task import Task

SPECIAL = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def tokenizer_of(eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """Every byte a token; chat marks are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token=eos, additional_special_tokens=SPECIAL
    )


def task_of(thinking: bool = False, tools: bool = False, system: bool = False) -> Task:
    messages = [{"role": "user", "content": "2+2?"}]
    if system:
        messages.insert(0, {"role": "system", "content": "Be brief."})
    tool = {"type": "function", "name": "add", "parameters": {}}
    return Task("math", "math", tuple(messages), {}, thinking=thinking, tools=(tool,) if tools else ())  # type: ignore[arg-type]


def text_of(chat: ChatFormat, task: Task) -> str:
    return chat.decode(chat.prompt_ids(task))


def test_cascade_2_prompts() -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-2")
    turn = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(chat, task_of()) == turn + "<think></think>"
    assert text_of(chat, task_of(thinking=True)) == turn + "<think>\n"
    tools = '<tools>\n{"type": "function", "name": "add", "parameters": {}}\n</tools>'
    system = f"<|im_start|>system\nBe brief.\n{tools}<|im_end|>\n"
    assert text_of(chat, task_of(tools=True, system=True)) == system + turn + "<think></think>"
    assert text_of(chat, task_of(tools=True)).startswith(f"<|im_start|>system\n{tools}<|im_end|>\n")


def test_cascade_1_prompts_carry_flags() -> None:
    chat = ChatFormat(tokenizer_of(), "nemotron-cascade-1")
    text = text_of(chat, task_of(thinking=True))
    assert text.startswith("<|im_start|>system\nYou are a helpful and harmless assistant.<|im_end|>\n")
    assert "2+2? /think<|im_end|>" in text and text.endswith("assistant\n<think>\n")
    assert "2+2? /no_think<|im_end|>" in text_of(chat, task_of())


@pytest.mark.parametrize("name", ["nemotron-cascade-1", "nemotron-cascade-2"])
def test_history_drops_thoughts(name: str) -> None:
    history = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhidden</think>\nshown"},
        {"role": "user", "content": "b"},
    )
    task = Task("math", "math", history, {}, thinking=True)  # type: ignore[arg-type]
    text = text_of(ChatFormat(tokenizer_of(), name), task)  # type: ignore[arg-type]
    assert "hidden" not in text and "shown<|im_end|>" in text
    assert text.count(" /think") == (name == "nemotron-cascade-1") == text.count("a /no_think")


def test_own_template_is_the_tokenizers_and_its_end_of_turn_is_found() -> None:
    tokenizer = tokenizer_of(eos="<|endoftext|>")
    with pytest.raises(UserError, match=r"model\.chat_template"):
        ChatFormat(tokenizer)
    tokenizer.chat_template = template("nemotron-cascade-2")
    chat = ChatFormat(tokenizer)
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.end_ids == (1, 3) and chat.pad_id == 0
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    assert ChatFormat(tokenizer).end_of_turn == tokenizer.eos_token_id


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_completions_decode_to_what_was_encoded(text: str) -> None:
    chat = ChatFormat(TOKENIZER, "nemotron-cascade-2")
    ids = chat.completion_ids(task_of(), text)
    assert ids[-1] == chat.end_of_turn
    assert chat.decode(ids) == text
    assert chat.decode(ids[:-1]) == text


TOKENIZER = tokenizer_of()
