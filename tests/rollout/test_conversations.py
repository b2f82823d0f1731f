"""Conversations: batched turns, append-only tokens, limits, seeds, gradients on what was sampled alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kascade.data.chat import ChatFormat
from kascade.environments import BUILTIN
from kascade.environments.base import Environment, Session, Turn
from kascade.errors import UserError
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.conversations import Dialogue, Opening, converse, open_sessions
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.task import Grade, Task

SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL,
    )


CHAT = ChatFormat(byte_tokenizer(), "nemotron-cascade-2")


class Counting(Session):
    """Wants the words "1", "2", … up to `goal`; a wrong word ends it."""

    opened: int = 0
    closed: int = 0

    def __init__(self, goal: int) -> None:
        self.goal, self.heard = goal + 0, 0
        self.open = True
        Counting.opened += 1

    def respond(self, answer: str) -> Turn | Grade:
        if answer != str(self.heard + 1):
            return Grade(0.0, {"heard": float(self.heard)})
        self.heard += 1
        if self.heard == self.goal:
            return Grade(1.0)
        return Turn(({"role": "tool", "content": f"heard {answer}"},))

    def stop(self) -> Grade:
        return Grade(0.25, {"heard": float(self.heard)})

    def close(self) -> None:
        Counting.closed += self.open
        self.open = False


class CountingUp(Environment):
    name = "counting_up"
    domain = "tool_use"
    batches: list[int] = []  # noqa: RUF012

    def pose(self, rng: Any, level: float) -> Task:
        raise NotImplementedError

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        raise AssertionError("a conversation grades itself")

    def start(self, task: Task) -> Session | None:
        if task.fields["goal"] is None:
            return None
        return Counting(task.fields["goal"])

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        self.batches.append(len(turns))
        return super().respond_all(turns)


@dataclass
class Parrot:
    """An engine that counts the answers in the prompt and says the next number; odd seeds stutter."""

    calls: list[list[Prompt]] = field(default_factory=list)
    rooms: list[int] = field(default_factory=list)
    version: int = 7
    wrong_after: Mapping[int, int] = field(default_factory=dict)

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        self.calls.append(list(prompts))
        self.rooms.append(params.max_new_tokens)
        return [[self._say(prompt, k, params) for k in range(prompt.num_samples)] for prompt in prompts]

    def _say(self, prompt: Prompt, sample: int, params: SamplingParams) -> Sample:
        number = CHAT.text(prompt.token_ids).count("<tool_response>") + 1
        ids = CHAT.completion_ids(TASK, str(number))[: params.max_new_tokens]
        reason = "stop" if ids[-1] == CHAT.end_of_turn else "length"
        return Sample(tuple(ids), tuple(-0.5 for _ in ids), reason, self.version)  # type: ignore[arg-type]

    def load_weights(self, version: int) -> None:
        self.version = version


def task_of(goal: int | None, question: str = "Count.") -> Task:
    return Task("counting_up", "tool_use", ({"role": "user", "content": question},), {"goal": goal})


TASK = task_of(1)


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(BUILTIN, "counting_up", "test_conversations:CountingUp")
    Counting.opened = Counting.closed = 0
    CountingUp.batches.clear()
    yield
    assert Counting.opened == Counting.closed


def talk(
    engine: Parrot, goals: Sequence[int], count: int = 2, max_new_tokens: int = 50, **limits: Any
) -> list[list[Dialogue]]:
    openings = []
    for number, goal in enumerate(goals):
        (sessions,) = open_sessions([task_of(goal, f"Count {number}.")], count)
        assert sessions is not None
        openings.append(Opening(task_of(goal, f"Count {number}."), sessions, seed=number))
    params = SamplingParams(max_new_tokens, conversation=ConversationLimits(**limits))
    return converse(engine, CHAT, openings, params)


def test_every_round_samples_all_that_wait_together() -> None:
    engine = Parrot()
    groups = talk(engine, [1, 3, 2], count=2)
    assert [[one.grade.reward for one in group] for group in groups] == [[1, 1]] * 3
    assert [[one.num_turns for one in group] for group in groups] == [[1, 1], [3, 3], [2, 2]]
    assert [sum(p.num_samples for p in call) for call in engine.calls] == [6, 4, 2]
    assert [p.num_samples for p in engine.calls[0]] == [2, 2, 2]  # a group's prompt is computed once
    assert CountingUp.batches == [6, 4, 2]


def test_tokens_only_grow_and_only_answers_are_drawn() -> None:
    engine = Parrot()
    ((one, _),) = talk(engine, [3])
    sample = one.sample
    assert sample.drawn is not None
    drawn = [token for token, mine in zip(sample.token_ids, sample.drawn, strict=True) if mine]
    assert CHAT.text(drawn) == "1<|im_end|>2<|im_end|>3<|im_end|>"
    assert len(sample.logprobs) == len(drawn) == sum(sample.scored)
    prompts = [next(p for p in call) for call in engine.calls]
    assert all(b.token_ids[: len(a.token_ids)] == a.token_ids for a, b in itertools.pairwise(prompts))
    assert "heard 1" in one.text and sample.finish_reason == "stop" and sample.weights_version == 7


def test_draws_of_a_turn_depend_on_opening_session_and_turn_only() -> None:
    alone, crowd = Parrot(), Parrot()
    talk(alone, [3])
    talk(crowd, [3, 2, 3])
    later = {p.seed for call in crowd.calls[1:] for p in call}
    assert {p.seed for call in alone.calls[1:] for p in call} <= later
    assert len(later) == sum(len(call) for call in crowd.calls[1:])
    assert all(0 <= seed < 2**63 for seed in later)


def test_turn_limit_grades_what_there_is() -> None:
    ((one,),) = talk(Parrot(), [5], count=1, max_turns=2)
    assert (one.grade.reward, one.grade.components) == (0.25, {"heard": 2.0})
    assert one.sample.finish_reason == "length" and one.num_turns == 2
    assert one.sample.drawn is not None and one.sample.drawn[-1]  # no result that nobody answered


def test_token_limit_bounds_every_answer_and_the_whole() -> None:
    prompt = len(CHAT.prompt_ids(task_of(5, "Count 0.")))
    ((one,),) = talk(Parrot(), [5], count=1, max_tokens=prompt + 1)
    assert len(one.sample.token_ids) == 1 and one.sample.finish_reason == "length"
    engine = Parrot()
    turn = 2 + len(CHAT.continuation_ids([{"role": "tool", "content": "heard 1"}], thinking=False))
    ((one,),) = talk(engine, [5], count=1, max_tokens=prompt + turn + 3)
    assert engine.rooms == [50 if turn + 3 > 50 else turn + 3, 3]
    assert len(one.sample.token_ids) <= turn + 3


def test_time_limit() -> None:
    ((one,),) = talk(Parrot(), [5], count=1, max_seconds=1e-9)
    assert one.num_turns == 1 and one.sample.finish_reason == "length"


def test_answer_cut_at_its_length_ends_the_conversation() -> None:
    ((one,),) = talk(Parrot(), [5], count=1, max_new_tokens=1)
    assert one.grade.reward == 0.25 and one.sample.finish_reason == "length"


def test_prompt_without_room_is_refused_and_sessions_are_closed() -> None:
    with pytest.raises(UserError, match="max_tokens"):
        talk(Parrot(), [1], max_tokens=3)


def test_single_answers_open_no_session() -> None:
    assert open_sessions([task_of(None)], 4) == [None]


def test_sessions_are_closed_when_a_later_one_cannot_open() -> None:
    with pytest.raises(TypeError):
        open_sessions([task_of(1), task_of("many")], 2)  # type: ignore[arg-type]
    assert Counting.opened == 2


def test_weights_may_not_change_within_a_conversation() -> None:
    class Changing(Parrot):
        def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
            self.version += 1
            return super().sample(prompts, params)

    with pytest.raises(ValueError, match="versions"):
        talk(Changing(), [2])
