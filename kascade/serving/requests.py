"""What a client may ask: the part of the OpenAI API that a checkpoint can answer, checked."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kascade.environments.rows.tool_calls import function_of
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.types import SamplingParams

MOST_CHOICES = 128  # answers to one request
MOST_TOP = 20  # alternatives per token, as in the OpenAI API
Stop = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ApiRequest(BaseModel):
    """What both endpoints share. Unknown keys are refused: a setting must not be dropped in silence.

    Keys at the end have one value that means "nothing", which clients send by habit.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: tuple[Stop, ...] = ()
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else () if value is None else value

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _zero(cls, value: Any) -> Any:
        return 0 if value == 0 else value

    def params(self, max_new_tokens: int) -> SamplingParams:
        """How to sample at most `max_new_tokens`."""
        return SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,
            stop_texts=self.stop,
            conversation=ConversationLimits(),
        )


class TemplateArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    enable_thinking: bool = False


class ChatMessage(BaseModel):
    """One turn of a conversation. Content in parts is joined. Only text is understood."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        parts = [part for part in value if isinstance(part, dict)]
        kinds = {str(part.get("type")) for part in parts}
        if len(parts) != len(value) or kinds - {"text"}:
            raise ValueError(f"only parts of type text are understood, not {', '.join(sorted(kinds))}")
        return "".join(str(part.get("text", "")) for part in parts)

    @field_validator("tool_calls")
    @classmethod
    def _calls(cls, calls: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        """Arguments as objects, which is how chat templates take them."""
        return None if calls is None else [_call(number, call) for number, call in enumerate(calls)]

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError("content: a text is needed")
        return self


def _call(number: int, call: dict[str, Any]) -> dict[str, Any]:
    place, function = f"[{number}].function", call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{place}.name: the name of a function is needed")
    arguments = function.get("arguments") or {}
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ValueError(f"{place}.arguments: the text of a JSON object is needed")
    return {**call, "function": {**function, "arguments": arguments}}


class ChatRequest(ApiRequest):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_TOP)
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: TemplateArguments = TemplateArguments()
    response_format: dict[str, Any] | None = None

    @field_validator("tools")
    @classmethod
    def _tools(cls, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, tool in enumerate(tools):
            function = function_of(tool)
            if not isinstance(function.get("name"), str) or not function["name"]:
                raise ValueError(f"[{number}].function.name: the name of a function is needed")
            if not isinstance(function.get("parameters"), dict | None):
                raise ValueError(f"[{number}].function.parameters: a JSON schema, an object, is needed")
        return tools

    @model_validator(mode="after")
    def _can_be_answered(self) -> ChatRequest:
        if (self.response_format or {}).get("type", "text") != "text":
            raise ValueError("response_format: only text can be answered, nothing constrains the decoder")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs: true")
        if self.limit == 0:
            raise ValueError("max_tokens: 1 or more is needed for an answer")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens to answer with, where the client says."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(ApiRequest):
    """`POST /v1/completions`. prompt: one or several, as text or as token ids."""

    prompt: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1)]
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    echo: bool = False
    best_of: int | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _can_be_answered(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of: answers are not ranked here; leave it out, or give n")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [[int(part) for part in self.prompt if isinstance(part, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]
