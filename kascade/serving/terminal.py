"""A conversation in the terminal, with one checkpoint or two side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from kascade.rollout.types import SamplingParams
from kascade.serving.requests import ChatMessage
from kascade.serving.served import Served

HELP = "/think and /no_think switch thinking, /new begins a new conversation, /quit ends"


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are drawn."""

    thinking: bool = False
    temperature: float = 0.0
    max_tokens: int = 512


@dataclass(slots=True)
class Speaker:
    """One checkpoint with its side of the conversation."""

    served: Served
    turns: list[ChatMessage] = field(default_factory=list)

    @classmethod
    def load(cls, named: str, template: str) -> Speaker:
        """Raises UserError where there is no such checkpoint."""
        return cls(Served.load(named, template=template))

    def say(self, message: str, settings: Settings) -> str:
        """The answer to a message, which joins the conversation."""
        self.turns.append(ChatMessage(role="user", content=message))
        task = self.served.task(self.turns, (), thinking=settings.thinking)
        ids = self.served.policy.chat.prompt_ids(task)
        room = self.served.room(len(ids), settings.max_tokens, settings.max_tokens)
        _, done = self.served.generate(ids, SamplingParams(room, temperature=settings.temperature), seed=0)
        (sample,) = done.result()
        answer = self.served.policy.chat.decode(sample.token_ids)
        self.turns.append(ChatMessage(role="assistant", content=answer))
        return answer


def talk(speakers: Sequence[Speaker], settings: Settings) -> None:
    """Answer each line of standard input until it ends."""
    console = Console()
    people = sys.stdin.isatty()
    if people:
        console.print(HELP, style="dim")
    for line in _lines(console, people):
        if line == "/quit":
            return
        if line == "/new":
            for speaker in speakers:
                speaker.turns.clear()
        elif line in ("/think", "/no_think"):
            settings = replace(settings, thinking=line == "/think")
        elif line:
            _show(console, speakers, [_said(speaker, line, settings) for speaker in speakers])


def _said(speaker: Speaker, line: str, settings: Settings) -> str:
    """The answer, or why there is none: a full context ends no conversation."""
    try:
        return speaker.say(line, settings)
    except ValueError as error:
        speaker.turns.pop()
        return f"(no answer: {error}; /new begins a new conversation)"


def _lines(console: Console, people: bool) -> Iterator[str]:
    while True:
        if people:
            console.print("> ", end="", style="bold")
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()


def _show(console: Console, speakers: Sequence[Speaker], answers: Sequence[str]) -> None:
    if len(speakers) == 1:
        console.print(Text(answers[0]))
        return
    width = max(20, console.width // len(speakers) - 1)
    console.print(
        Columns(
            [
                Panel(Text(answer), title=speaker.served.name, width=width)
                for speaker, answer in zip(speakers, answers, strict=True)
            ]
        )
    )
