"""Answers in the form of the OpenAI API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kascade.models.logprobs import RankedScores
from kascade.rollout.types import Sample
from kascade.serving.pieces import Pieces, tool_calls
from kascade.serving.requests import ChatRequest, CompletionRequest
from kascade.serving.served import Served
from kascade.serving.text import Detokenizer


@dataclass(frozen=True, slots=True)
class Reply:
    """What all parts of one reply carry. kind: `chat.completion`, `text_completion`."""

    kind: str
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """The reply at once."""
        return {**self._head(self.kind), "choices": list(choices), "usage": usage}

    def chunk(self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        """One event of a stream."""
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        chunk = {**self._head(kind), "choices": list(choices)}
        return chunk if usage is None else {**chunk, "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat.completion" else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}


def usage(num_prompt: int, samples: Sequence[Sample]) -> dict[str, int]:
    """Tokens of a prompt and of its answers."""
    num_answers = sum(len(sample.token_ids) for sample in samples)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_answers,
        "total_tokens": num_prompt + num_answers,
    }


class ChatAnswer:
    """One answer of a chat, taken token by token: deltas for a stream, and the message at the end."""

    def __init__(self, served: Served, request: ChatRequest, index: int, name: str) -> None:
        """name: what ids of tool calls begin with."""
        chat = served.policy.chat
        self.index, self._name, self._tools = index, f"{name[:12]}_{index}", request.tools
        calls = bool(request.tools) and request.tool_choice != "none"
        thinking = request.chat_template_kwargs.enable_thinking
        self._text = Detokenizer(chat.text, frozenset(chat.end_ids))
        self._pieces = Pieces(thinking, calls, request.stop)
        self._said: dict[str, str] = {"reasoning": "", "content": "", "calls": ""}

    def add(self, token: int) -> list[dict[str, Any]]:
        """Deltas that are certain once this token has come."""
        return self._note(self._pieces.add(self._text.add(token)))

    def finish(self) -> list[dict[str, Any]]:
        """The last deltas, tool calls among them."""
        deltas = self._note(self._pieces.add(self._text.finish())) + self._note(self._pieces.finish())
        if calls := self.calls:
            return [*deltas, {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]}]
        if self._said["calls"]:  # nothing that can be read as a call: it is what the answer says
            deltas.append({"content": self._said["calls"]})
        return deltas

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Tool calls, once the answer is finished."""
        return tool_calls(self._said["calls"], self._tools, self._name)

    def message(self) -> dict[str, Any]:
        """The whole turn. Call after `finish`."""
        calls = self.calls
        content = self._said["content"].strip("\n") + ("" if calls else self._said["calls"])
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
        if self._said["reasoning"]:
            message["reasoning_content"] = self._said["reasoning"].strip("\n")
        return {**message, "tool_calls": calls} if calls else message

    def reason(self, sample: Sample) -> str:
        """Why the answer ended."""
        return "tool_calls" if self.calls else sample.finish_reason

    def _note(self, pieces: Any) -> list[dict[str, Any]]:
        deltas = []
        for kind, text in pieces:
            self._said[kind] += text
            if kind != "calls":
                deltas.append({"reasoning_content" if kind == "reasoning" else "content": text})
        return deltas


def chat_logprobs(served: Served, sample: Sample, scores: RankedScores) -> dict[str, Any]:
    """The model's own log-probabilities of an answer's tokens, and the likeliest ones at each place."""
    chat = served.policy.chat

    def named(token: int, logprob: float) -> dict[str, Any]:
        text = chat.text([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    own = len(sample.token_ids)
    rows = zip(sample.token_ids, scores.logprobs[-own:], scores.top[-own:], strict=True)
    return {
        "content": [
            {**named(token, logprob), "top_logprobs": [named(*one) for one in top]}
            for token, logprob, top in rows
        ]
    }


def completion_text(served: Served, request: CompletionRequest, sample: Sample) -> str:
    """An answer's text without the token and the stop text that ended it."""
    chat = served.policy.chat
    text = chat.decode(sample.token_ids)
    places = [at for stop in request.stop if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def completion_logprobs(
    served: Served, token_ids: Sequence[int], scores: RankedScores, first: int
) -> dict[str, Any]:
    """Log-probabilities of tokens from number `first` on. A prompt's first token has none."""
    chat = served.policy.chat
    texts = [chat.text([token]) for token in token_ids]
    offsets = [sum(map(len, texts[first:place])) for place in range(first, len(texts))]
    tops = [None, *({chat.text([t]): p for t, p in reversed(top)} for top in scores.top)]
    return {
        "tokens": texts[first:],
        "token_logprobs": [None, *scores.logprobs][first:],
        "top_logprobs": tops[first:],
        "text_offset": offsets,
    }
