"""Conversations as tokens that only ever grow, with the mask of what is learnt from.

A template renders a conversation in one go and may rewrite its past: both Nemotron-Cascade templates drop
the thoughts of earlier answers (arXiv 2603.19220 §3.1.2), the first generation also turns earlier `/think`
flags into `/no_think`. A rollout cannot follow: the policy saw, and sampled after, the tokens as they were,
and a changed past would change the log-probability of everything behind it. So here the past stays (all
thoughts kept, flags as they were), and append-only and one-go rendering agree wherever a template does not
rewrite: the prompt, what stands between answers, and, in the second generation, answers that do not think
and begin with the line break that its history puts after the empty think block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from kascade.data.json_text import SURROGATE
from kascade.task import Message, Task

if TYPE_CHECKING:
    from kascade.data.chat import ChatFormat

UNREADABLE = "\ufffd"  # what decoding puts where bytes are no character


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Neighbouring tokens of one origin, as text: what the policy learns from, or what it only reads."""

    learnt: bool
    text: str


@dataclass(slots=True)
class Conversation:
    """Tokens of one conversation, appended turn by turn.

    token_ids [T]; learnt [T]: whether the policy sampled the token (answers with their end token) or only
    read it (prompt, tool results, user turns); logprobs: of the sampled tokens only, in order.
    """

    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(init=False)
    learnt: list[bool] = field(init=False)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_ids)
        self.learnt = [False] * len(self.prompt_ids)

    def add_answer(
        self, token_ids: Sequence[int], logprobs: Sequence[float], drawn: Sequence[bool] | None = None
    ) -> None:
        """Append an answer's tokens; drawn: which of them were sampled, None: all.

        Raises ValueError when a sampled token lacks its log-probability.
        """
        drawn = [True] * len(token_ids) if drawn is None else drawn
        if sum(drawn) != len(logprobs):
            raise ValueError(f"{sum(drawn)} sampled tokens, but {len(logprobs)} log-probabilities")
        self.token_ids += token_ids
        self.learnt += drawn
        self.logprobs += logprobs

    def add_context(self, chat: ChatFormat, messages: Sequence[Message], *, thinking: bool | None) -> None:
        """Append what the environment said, and the start of the next answer.

        An answer that ended with another token than the template's (an end of sequence) gets that token
        too, as context.
        """
        ids = chat.continuation_ids(messages, thinking=thinking)
        if self.token_ids[-1] != chat.end_of_turn:
            ids = [chat.end_of_turn, *ids]
        self.token_ids += ids
        self.learnt += [False] * len(ids)

    def after(self, start: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Tokens and mask of all that follows the first `start` tokens."""
        return tuple(self.token_ids[start:]), tuple(self.learnt[start:])

    def runs(self, chat: ChatFormat) -> list[TokenRun]:
        """The conversation for people to read, special tokens and all, with what is learnt from marked."""
        pairs = zip(self.learnt, self.token_ids, strict=True)
        return [
            TokenRun(learnt, chat.text([token for _, token in tokens]))
            for learnt, tokens in groupby(pairs, key=lambda pair: pair[0])
        ]


def heard(messages: Sequence[Message]) -> tuple[Message, ...]:
    """What an environment says, with a mark for each half character, which no token has: a tool may only
    repeat what the answer gave it."""
    return tuple({**one, "content": SURROGATE.sub(UNREADABLE, one["content"])} for one in messages)


def demonstration(chat: ChatFormat, task: Task, turns: Sequence[Message]) -> Conversation:
    """A task's prompt followed by given turns: assistant turns are learnt from, all others read.

    turns begins with an assistant turn. What an assistant turn says is taken as it is, thoughts and calls
    in the content included. Log-probabilities of demonstrations are 0: nobody sampled them.
    Raises ValueError when the turns do not begin with an assistant's, or nobody speaks between two of them.
    """
    conversation = Conversation(tuple(chat.prompt_ids(task)))
    between: list[Message] = []
    answered = False
    for turn in turns:
        if turn["role"] != "assistant":
            between.append(turn)
            continue
        if answered != bool(between):
            raise ValueError("an assistant turn comes first, and never right after another one")
        if between:
            conversation.add_context(chat, between, thinking=task.asks_to_think)
            between = []
        ids = chat.completion_ids(task, turn["content"])
        conversation.add_answer(ids, [0.0] * len(ids))
        answered = True
    return conversation
