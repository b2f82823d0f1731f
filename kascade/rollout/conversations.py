"""Many conversations at once: each round samples one answer for every conversation that waits for one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kascade.data.chat import ChatFormat
from kascade.data.conversation import Conversation, heard
from kascade.environments import get_environment
from kascade.environments.base import Session, Turn, WholePrompt
from kascade.environments.crashes import opened, responded, stopped
from kascade.errors import Fault, UserError
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.sampling import stream_key
from kascade.rollout.types import FinishReason, Prompt, RolloutEngine, Sample, SamplingParams
from kascade.task import Grade, Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Opening:
    """A conversation to be had, `sessions` times over; `seed` fixes what is drawn.

    first: number of the first conversation, as of samples in `Prompt`.
    """

    task: Task
    sessions: tuple[Session, ...]
    seed: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation that ended: all after its prompt as one sample, its text, and its grade.

    prompt_ids: the beginning that all conversations of its opening have in common. finish_reason is
    "length" when a limit (turns, tokens, time) ended it.
    """

    prompt_ids: tuple[int, ...]
    sample: Sample
    text: str
    grade: Grade
    num_turns: int


@dataclass(slots=True)
class _Open:
    """A conversation under way: number `place` of its opening. The policy has said `num_turns` answers.

    thinking: prompts leave a think block open. failed: why it cannot be had, whatever the first answer is.
    """

    opening: Opening
    place: int
    tokens: Conversation
    deadline: float
    thinking: bool
    failed: Grade | None = None
    num_turns: int = 0
    routing: Tensor | None = None
    versions: set[int] = field(default_factory=set)
    ended: tuple[Grade, FinishReason] | None = None

    @property
    def session(self) -> Session:
        return self.opening.sessions[self.place]

    @property
    def task(self) -> Task:
        return self.opening.task

    def room(self, limits: ConversationLimits) -> int:
        return limits.max_tokens - len(self.tokens.token_ids)

    def end(self, grade: Grade, reason: FinishReason) -> None:
        self.ended = grade, reason
        self.session.close()

    def hear(self, chat: ChatFormat, said: Turn, limits: ConversationLimits) -> None:
        """Append what the environment said. Where that cannot be read, the conversation ends in an error."""
        try:
            self.tokens.add_context(chat, heard(said.messages), thinking=self.task.asks_to_think)
        except UserError as error:
            self.end(_unreadable(error), "stop")
        else:
            self.end_if_exhausted(limits)

    def end_if_exhausted(self, limits: ConversationLimits) -> None:
        """End it where it may not continue, though nobody ended it."""
        out_of_time = time.monotonic() >= self.deadline
        if self.num_turns >= limits.max_turns or self.room(limits) < 1 or out_of_time:
            self.end(stopped(self.task.environment, self.session), "length")


def open_sessions(tasks: Sequence[Task], count: int) -> list[tuple[Session, ...] | None]:
    """For each task a session for each of its rollouts, or None when one answer is all that it takes.

    The caller closes them; when one cannot be opened, those opened before it are closed here.
    """
    with ExitStack() as stack:
        opened = [_open_group(task, count, stack) for task in tasks]
        stack.pop_all()
        return opened


def _open_group(task: Task, count: int, stack: ExitStack) -> tuple[Session, ...] | None:
    environment = get_environment(task.environment)
    sessions = []
    for _ in range(count):
        session = environment.start(task)
        if session is None:
            return None
        stack.callback(session.close)
        sessions.append(session)
    return tuple(sessions)


def converse(
    engine: RolloutEngine,
    chat: ChatFormat,
    openings: Sequence[Opening],
    params: SamplingParams,
) -> list[list[Dialogue]]:
    """Have all conversations, one for each session of each opening, in order.

    Sessions are closed in any case. What is drawn in a turn depends on (opening's seed, session, turn) and
    on what was said before, never on which other conversations there are. Raises UserError for a prompt
    that leaves no room, ValueError when weights changed within a conversation.
    """
    with ExitStack() as stack:
        for opening in openings:
            for session in opening.sessions:
                stack.callback(session.close)
        limits = params.conversation
        said = _first_words(openings)
        groups = [_open(chat, opening, said, limits) for opening in openings]
        waiting = [one for group in groups for one in group]
        while waiting:
            _respond(chat, waiting, _sample(engine, waiting, params, limits), limits)
            waiting = [one for one in waiting if one.ended is None]
        return [_closed(chat, group) for group in groups]


def _first_words(openings: Sequence[Opening]) -> dict[int, Turn | None]:
    """What each session says before the first answer, by the session's `id`."""
    by_environment: dict[str, list[Session]] = defaultdict(list)
    for opening in openings:
        by_environment[opening.task.environment] += opening.sessions
    return {
        id(session): turn
        for name, sessions in by_environment.items()
        for session, turn in zip(sessions, opened(get_environment(name), sessions), strict=True)
    }


def _open(
    chat: ChatFormat, opening: Opening, said: Mapping[int, Turn | None], limits: ConversationLimits
) -> list[_Open]:
    """Raises UserError where the task itself cannot be asked; first words of an environment that cannot be
    read end their own conversation alone."""
    task, deadline = opening.task, time.monotonic() + limits.max_seconds
    thinking = task.thinking and chat.opens(task)
    found = []
    for place, session in enumerate(opening.sessions):
        turn, failed = said[id(session)], None
        try:
            prompt = _prompt_ids(chat, task, turn, limits)
        except UserError as error:
            if turn is None:
                raise
            failed = _unreadable(error)
            prompt = _prompt_ids(chat, task, None, limits)
        found.append(_Open(opening, place, Conversation(prompt), deadline, thinking, failed))
    return found


def _unreadable(error: UserError) -> Grade:
    what = "; ".join(fault.what for fault in error.faults)
    return Grade.failed(f"what the environment says cannot be read: {what}")


def _prompt_ids(
    chat: ChatFormat, task: Task, said: Turn | None, limits: ConversationLimits
) -> tuple[int, ...]:
    """Raises UserError for a prompt that has no tokens, or too many."""
    words = () if said is None else heard(said.messages)
    asked = replace(task, messages=(*task.messages, *words))
    if isinstance(said, WholePrompt):
        asked = replace(task, messages=words, tools=said.tools)
    ids = tuple(chat.prompt_ids(asked))
    if len(ids) >= limits.max_tokens:
        what = f"its prompt has {len(ids)} tokens, which leaves no room in a conversation"
        allowed = f"fewer than conversation.max_tokens, {limits.max_tokens}"
        raise UserError(Fault(f"{task.environment}, task {task.id}", what, allowed))
    return ids


def _sample(
    engine: RolloutEngine, waiting: Sequence[_Open], params: SamplingParams, limits: ConversationLimits
) -> list[Sample]:
    """One answer for each waiting conversation; those that may say equally much are sampled together."""
    drawn: dict[int, Sample] = {}
    rooms = [min(params.max_new_tokens, one.room(limits)) for one in waiting]
    for room in sorted(set(rooms), reverse=True):
        owners = _owners([row for row, own in enumerate(rooms) if own == room], waiting)
        prompts = [_prompt([waiting[row] for row in rows]) for rows in owners]
        answers = engine.sample(prompts, replace(params, max_new_tokens=room))
        for rows, samples in zip(owners, answers, strict=True):
            drawn.update(zip(rows, samples, strict=True))
    return [drawn[row] for row in range(len(waiting))]


def _owners(rows: Sequence[int], waiting: Sequence[_Open]) -> list[list[int]]:
    """Rows that share a prompt: first answers of an opening, whose prompt the engine then computes once.

    Where the environment has said different words to them, each row has a prompt of its own.
    """
    shared: dict[tuple[int, object], list[int]] = defaultdict(list)
    for row in rows:
        one = waiting[row]
        shared[id(one.opening), one.place if one.num_turns else one.tokens.prompt_ids].append(row)
    return list(shared.values())


def _prompt(sharing: Sequence[_Open]) -> Prompt:
    one = sharing[0]
    seed, first = one.opening.seed, one.opening.first
    if one.num_turns or len(sharing) < len(one.opening.sessions):  # no prompt that all of them share
        seed = stream_key(stream_key(seed, first + one.place), one.num_turns) >> 1  # 63 bits, as all seeds
        first = 0
    ids = tuple(one.tokens.token_ids)
    return Prompt(ids, len(sharing), seed, thinking=one.thinking, first=first)


def _respond(
    chat: ChatFormat, waiting: Sequence[_Open], answers: Sequence[Sample], limits: ConversationLimits
) -> None:
    """Hand every answer to its environment, all of one environment at once, and append what it says."""
    complete: dict[str, list[tuple[_Open, str]]] = defaultdict(list)
    for one, sample in zip(waiting, answers, strict=True):
        one.tokens.add_answer(sample.token_ids, sample.logprobs, sample.drawn)
        one.routing = sample.routing  # of all before the answer, too: it was that answer's prompt
        one.num_turns += 1
        one.versions.add(sample.weights_version)
        if one.failed is not None:
            one.end(one.failed, "stop")
        elif sample.finish_reason == "length":
            one.end(stopped(one.task.environment, one.session), "length")
        else:
            # All answers to one environment together: a server or a sandbox is asked once per round.
            complete[one.task.environment].append((one, chat.said(one.task, sample.token_ids)))
    for name, turns in complete.items():
        said = responded(get_environment(name), [(one.session, text) for one, text in turns])
        for (one, _), reaction in zip(turns, said, strict=True):
            if isinstance(reaction, Turn):
                one.hear(chat, reaction, limits)
            else:
                one.end(reaction, "stop")


def _closed(chat: ChatFormat, group: Sequence[_Open]) -> list[Dialogue]:
    """The dialogues of one opening. Their prompt is what they have in common, the rest was read, not said."""
    common = _common([one.tokens.prompt_ids for one in group])
    return [_close(chat, one, common) for one in group]


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens all prompts share."""
    first, last = min(prompts), max(prompts)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _close(chat: ChatFormat, one: _Open, common: int) -> Dialogue:
    if len(one.versions) > 1:
        raise ValueError(f"one conversation was drawn by several versions of the weights: {one.versions}")
    assert one.ended is not None
    grade, reason = one.ended
    token_ids, drawn = one.tokens.after(common)
    # What the environment said last, when a limit left it without an answer, is nobody's to learn from.
    while drawn and not drawn[-1]:
        token_ids, drawn = token_ids[:-1], drawn[:-1]
    (version,) = one.versions
    sample = Sample(token_ids, tuple(one.tokens.logprobs), reason, version, drawn, one.routing)
    prompt_ids = one.tokens.prompt_ids[:common]
    return Dialogue(prompt_ids, sample, chat.decode(token_ids), grade, one.num_turns)
