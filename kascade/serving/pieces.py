"""What an answer's text means (reasoning, content, tool calls), piece by piece as it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kascade.environments.rows.tool_calls import parse_tool_calls
from kascade.task import THINK_END, THINK_START

Kind = Literal["reasoning", "content", "calls"]
CALL_START = "<tool_call>"


@dataclass(slots=True)
class Pieces:
    """Takes text as it comes and says what each stretch is. What may still become a marker is held back.

    thinking: the prompt left a think block open. calls: tool calls are looked for. stops: texts that end the
    answer and are not part of it. Once a call begins, all that follows is kept for `finish`.
    """

    thinking: bool
    calls: bool
    stops: tuple[str, ...] = ()
    _waiting: str = ""
    _kind: Kind | None = field(default=None)
    _trims: bool = False  # line breaks between thinking and answer are no part of the answer
    ended: bool = False

    def __post_init__(self) -> None:
        if self.thinking:
            self._kind = "reasoning"

    def add(self, text: str) -> Iterator[tuple[Kind, str]]:
        """What is certain once `text` has come."""
        if not self.ended:
            self._waiting += text
        return self._said(last=False)

    def finish(self) -> Iterator[tuple[Kind, str]]:
        """The rest: nothing more will come."""
        return self._said(last=True)

    def _said(self, *, last: bool) -> Iterator[tuple[Kind, str]]:
        self._cut_at_stop()
        if self._kind is None and not self._begun(last=last or self.ended):
            return
        if self._kind == "reasoning":
            yield from self._until(THINK_END, "content", last=last)
        if self._kind == "content" and self.calls:
            yield from self._until(CALL_START, "calls", last=last, keep_marker=True)
        elif self._kind == "content":
            yield from self._give("content", 0 if last or self.ended else self._held(self.stops))
        if last and self._kind == "calls":
            yield from self._give("calls", 0)

    def _cut_at_stop(self) -> None:
        """End the answer where the first stop text begins."""
        places = [at for stop in self.stops if (at := self._waiting.find(stop)) >= 0]
        if places:
            self._waiting, self.ended = self._waiting[: min(places)], True

    def _begun(self, *, last: bool) -> bool:
        """Whether the first characters say if the answer opens with a think block of its own."""
        start = self._waiting.lstrip()
        if not last and len(start) < len(THINK_START) and THINK_START.startswith(start):
            return False
        if start.startswith(THINK_START):
            self._waiting, self._kind = start[len(THINK_START) :], "reasoning"
        else:
            self._kind = "content"
        return True

    def _until(
        self, marker: str, following: Kind, *, last: bool, keep_marker: bool = False
    ) -> Iterator[tuple[Kind, str]]:
        """Give what stands before `marker`; after it comes `following`."""
        kind = self._kind or "content"
        self._trim()
        before, found, after = self._waiting.partition(marker)
        if found:
            self._waiting, self._kind = (marker if keep_marker else "") + after, following
            self._trims = not keep_marker
            if before:
                yield kind, before
            return
        yield from self._give(kind, 0 if last or self.ended else self._held((marker, *self.stops)))

    def _trim(self) -> None:
        if self._trims:
            self._waiting = self._waiting.lstrip("\n")
            self._trims = not self._waiting

    def _held(self, markers: Sequence[str]) -> int:
        """How many of the last characters may be the beginning of a marker."""
        return max(
            (
                length
                for marker in markers
                for length in range(1, min(len(marker), len(self._waiting) + 1))
                if self._waiting.endswith(marker[:length])
            ),
            default=0,
        )

    def _give(self, kind: Kind, held: int) -> Iterator[tuple[Kind, str]]:
        self._trim()
        cut = len(self._waiting) - held
        given, self._waiting = self._waiting[:cut], self._waiting[cut:]
        if given:
            yield kind, given


def tool_calls(text: str, tools: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The calls in `text` in the API's form; empty where none can be read. name: what ids begin with."""
    return [
        {
            "id": f"call_{name}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for number, call in enumerate(parse_tool_calls(text, tools))
    ]
