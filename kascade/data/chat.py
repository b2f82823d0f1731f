"""Tasks as tokens: chat templates, prompts, completions. Tokens are only ever appended, never made again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kascade.data.switch import PROBE, chosen, opens_thinking, own_switch, switched, template_flags
from kascade.errors import Fault, UserError
from kascade.recipe.model_parts import ThinkingSwitch
from kascade.task import THINK_END, THINK_START, Called, Message, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kascade.recipe.schema import ModelPart

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

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: TemplateName = "own",
        switch: ThinkingSwitch = "template",
        words: tuple[str, str] | None = None,
    ) -> None:
        """switch, words: how a prompt asks for thinking or for none, as in a recipe's `model`.

        Raises UserError when the template is "own" and the tokenizer has none.
        """
        self._tokenizer: Any = tokenizer
        self.template = _source(tokenizer, template)
        asks = chosen(switch, words) or own_switch(self._probe)
        if asks is not None:
            self.template = switched(self.template, asks)
        self.end_of_turn = self._find_end_of_turn()
        ends = {self.end_of_turn, self._tokenizer.eos_token_id}
        self.end_ids: tuple[int, ...] = tuple(sorted(end for end in ends if end is not None))
        pad_id: int | None = self._tokenizer.pad_token_id
        self.pad_id: int = self.end_of_turn if pad_id is None else pad_id
        self._opens = {asked: opens_thinking(self._probe([PROBE], asked)) for asked in (True, False, None)}

    def opens(self, task: Task) -> bool:
        """Whether the prompt ends inside an open think block."""
        return self._opens[task.asks_to_think]

    def prompt_ids(self, task: Task) -> list[int]:
        """The conversation up to where the answer starts."""
        text = self._render(task.messages, task, add_generation_prompt=True)
        return self._encode(text)

    def completion_ids(self, task: Task, text: str) -> list[int]:
        """An answer to `task`, with tool calls in the template's form, and the token that ends the turn.

        Thinking that the prompt does not open is opened by the answer.
        """
        learnt = self.learnt_text(text)
        if THINK_END in learnt and THINK_START not in learnt and not self.opens(task):
            learnt = f"{THINK_START}\n{learnt}"
        return [*self._encode(learnt), self.end_of_turn]

    def said(self, task: Task, ids: Sequence[int]) -> str:
        """The text of a completion as graders read it.

        Where thinking is asked for, it begins inside the think block, whoever opened that. An answer that did
        not think begins with the end of an empty one.
        """
        text = self.decode(ids)
        if not task.thinking or self.opens(task):
            return text
        if text.lstrip().startswith(THINK_START):
            return text.lstrip().removeprefix(THINK_START)
        return f"{THINK_END}{text}"

    def learnt_text(self, answer: str) -> str:
        """An answer as the model's own template writes it: tool calls in its form, and not in ours."""
        if not isinstance(answer, Called):
            return answer
        asked: Message = {"role": "user", "content": "?"}
        mark = ANSWER if answer.words.rpartition(THINK_END)[2].strip() else ""
        said: Message = {"role": "assistant", "content": ANSWER}
        before, _, after = self._apply([asked, said], (), False, add_generation_prompt=False).partition(
            ANSWER
        )
        calls: Message = {"role": "assistant", "content": mark, "tool_calls": list(map(dict, answer.calls))}
        whole = self._apply([asked, calls], (), False, add_generation_prompt=False)
        written = whole.partition(mark)[2] if mark else whole[_num_common(whole, before) :]
        written = written.removesuffix(after)
        return answer.words + written if written.strip() else answer  # a template without calls has no form

    def continuation_ids(self, messages: Sequence[Message], *, thinking: bool | None) -> list[int]:
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
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError) as error:  # a lone surrogate
            what = "a text to be learnt or asked holds half a character, which no token has"
            raise UserError(Fault("chat template", what, remedy="repair the row, or the template")) from error
        return ids

    def _render(self, messages: Sequence[Any], task: Task | None, *, add_generation_prompt: bool) -> str:
        tools, thinking = (task.tools, task.asks_to_think) if task else ((), False)
        return self._apply(messages, tools, thinking, add_generation_prompt=add_generation_prompt)

    def _probe(self, messages: Sequence[Message], thinking: bool | None) -> str:
        return self._apply(messages, (), thinking, add_generation_prompt=True)

    def _apply(
        self,
        messages: Sequence[Any],
        tools: Sequence[Any],
        thinking: bool | None,
        *,
        add_generation_prompt: bool,
    ) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                chat_template=self.template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **template_flags(thinking),
            )
        except Exception as error:  # a template is a program; whatever stops it refuses the conversation
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            remedy = "change or leave out the row, or name another template: model.chat_template"
            raise UserError(
                Fault("chat template", f"refuses a conversation: {reason}", remedy=remedy)
            ) from error
        return text

    def _find_end_of_turn(self) -> int:
        """The special token that the template puts after an answer; else the end of sequence."""
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        after = self._render(turn, None, add_generation_prompt=False).rpartition(ANSWER)[2]
        first = self._encode(after)[:1]
        special = {*self._tokenizer.all_special_ids, *getattr(self._tokenizer, "added_tokens_decoder", ())}
        eos: int | None = self._tokenizer.eos_token_id
        if first and first[0] in special:
            return first[0]
        if eos is None:
            what = "has no token that ends a turn, and the tokenizer has no end of sequence (eos_token)"
            raise UserError(
                Fault("model.chat_template", what, remedy="set eos_token in the tokenizer's files")
            )
        return eos


def chat_format(tokenizer: PreTrainedTokenizerBase, part: ModelPart | None) -> ChatFormat:
    """The chat format that a recipe's `model` asks for. Raises UserError as `ChatFormat` does."""
    if part is None:
        return ChatFormat(tokenizer)
    return ChatFormat(tokenizer, part.chat_template, part.thinking_switch, part.thinking_words)


def _num_common(ours: str, theirs: str) -> int:
    """Characters with which both texts begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))


def _source(tokenizer: PreTrainedTokenizerBase, name: TemplateName) -> str:
    if name != "own":
        return template(name)
    own: str | None = tokenizer.chat_template
    if not own:
        allowed = "nemotron-cascade-1, nemotron-cascade-2, or own with a tokenizer that has a template"
        remedy = "set model.chat_template: nemotron-cascade-2"
        raise UserError(Fault("model.chat_template", "the tokenizer has no chat template", allowed, remedy))
    return own
