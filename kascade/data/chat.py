"""Tasks as tokens: chat templates, prompts, completions. Tokens are only ever appended, never made again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kascade.environments.base import Message, Task
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["own", "nemotron-cascade-1", "nemotron-cascade-2"]
TEMPLATES = Path(__file__).parent / "templates"
ANSWER = "\ue000ANSWER\ue001"  # stands for an answer where a template is asked what it writes around one


@cache
def template(name: Literal["nemotron-cascade-1", "nemotron-cascade-2"]) -> str:
    """The Jinja source of a chat template of this package."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


class ChatFormat:
    """How one tokenizer writes tasks.

    A sequence is `prompt_ids(task) + completion`, where the completion is sampled tokens or
    `completion_ids(task, text)`; the prompt ends where the answer starts (inside an open think block
    when the task asks for thinking).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: TemplateName = "own") -> None:
        """Raises UserError when the template is "own" and the tokenizer has none."""
        self._tokenizer: Any = tokenizer
        self._template = _source(tokenizer, template)
        self.end_of_turn = self._find_end_of_turn()
        self.end_ids: tuple[int, ...] = tuple(sorted({self.end_of_turn, self._tokenizer.eos_token_id}))
        pad_id: int | None = self._tokenizer.pad_token_id
        self.pad_id: int = self.end_of_turn if pad_id is None else pad_id

    def prompt_ids(self, task: Task) -> list[int]:
        """The conversation up to where the answer starts."""
        text = self._render(task.messages, task, add_generation_prompt=True)
        return self._encode(text)

    def completion_ids(self, task: Task, text: str) -> list[int]:
        """An answer to `task` and the token that ends the turn."""
        return [*self._encode(text), self.end_of_turn]

    def continuation_ids(self, messages: Sequence[Message], *, thinking: bool) -> list[int]:
        """What stands between the token that ended an answer and where the next answer starts.

        messages: what the environment said in between. What came before is never rendered again, so a
        template that would rewrite it (drop thoughts, change flags) has no say in that: see
        `kascade.data.conversation`.
        """
        asked: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        text = self._apply([*asked, *messages], (), thinking, add_generation_prompt=True)
        ids = self._encode(text.partition(ANSWER)[2])
        return ids[1:] if ids[:1] == [self.end_of_turn] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without the token that ended it. Other special tokens stay visible."""
        return self.text(ids[:-1] if ids and ids[-1] in self.end_ids else ids)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones visible."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _render(self, messages: Sequence[Any], task: Task | None, *, add_generation_prompt: bool) -> str:
        tools, thinking = (task.tools, task.thinking) if task else ((), False)
        return self._apply(messages, tools, thinking, add_generation_prompt=add_generation_prompt)

    def _apply(
        self, messages: Sequence[Any], tools: Sequence[Any], thinking: bool, *, add_generation_prompt: bool
    ) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=self._template,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=thinking,
            tokenize=False,
        )
        return text

    def _find_end_of_turn(self) -> int:
        """The special token that the template puts after an answer; else the end of sequence."""
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        after = self._render(turn, None, add_generation_prompt=False).rpartition(ANSWER)[2]
        first = self._encode(after)[:1]
        eos: int = self._tokenizer.eos_token_id
        return first[0] if first and first[0] in self._tokenizer.all_special_ids else eos


def _source(tokenizer: PreTrainedTokenizerBase, name: TemplateName) -> str:
    if name != "own":
        return template(name)
    own: str | None = tokenizer.chat_template
    if not own:
        allowed = "nemotron-cascade-1, nemotron-cascade-2, or own with a tokenizer that has a template"
        remedy = "set model.chat_template: nemotron-cascade-2"
        raise UserError(Fault("model.chat_template", "the tokenizer has no chat template", allowed, remedy))
    return own
