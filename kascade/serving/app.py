"""The API itself: models, chat completions, completions, health. Errors have the OpenAI form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException as PlainHTTPException

from kascade.rollout.types import Sample
from kascade.serving.refusals import KeyNeeded, error_body, not_understood, refused
from kascade.serving.replies import (
    ChatAnswer,
    Reply,
    chat_logprobs,
    completion_logprobs,
    completion_text,
    usage,
)
from kascade.serving.requests import ChatRequest, CompletionRequest
from kascade.serving.served import Served
from kascade.serving.worker import Generation

T = TypeVar("T")
LOOKS_EVERY_S = 0.5  # whether a client that waits is still there


def make_app(served: Served, *, default_tokens: int, api_key: str | None = None) -> FastAPI:
    """The API of one checkpoint.

    default_tokens: most tokens of an answer where the client does not say. api_key: what clients must send as
    `Authorization: Bearer KEY`; None: nothing.
    """
    app = FastAPI(title=f"{served.name}, served by Kascade")
    app.exception_handler(RequestValidationError)(not_understood)
    app.exception_handler(PlainHTTPException)(refused)  # also of paths that there are not

    if api_key is not None:
        app.add_middleware(KeyNeeded, key=api_key)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": served.name, "object": "model", "owned_by": "kascade", "max_model_len": served.context}
        return {"object": "list", "data": [model]}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: ChatRequest, http: HttpRequest) -> Response | dict[str, Any]:
        _check_model(served, request.model)
        return await _Chat(served, request, default_tokens).answer(http)

    @app.post("/v1/completions", response_model=None)
    async def completions(request: CompletionRequest, http: HttpRequest) -> Response | dict[str, Any]:
        _check_model(served, request.model)
        return await _Completion(served, request, default_tokens).answer(http)

    return app


def _check_model(served: Served, asked: str | None) -> None:
    if asked is not None and asked != served.name:
        raise HTTPException(404, f"model: {asked!r} is not served here; give {served.name!r}")


class _Chat:
    """One chat request on its way."""

    def __init__(self, served: Served, request: ChatRequest, default_tokens: int) -> None:
        thinking = request.chat_template_kwargs.enable_thinking
        task = served.task(request.messages, request.tools, thinking=thinking)
        self.served, self.request = served, request
        said = sum(len(message.content or "") for message in request.messages)
        _checked(lambda: served.check_length(said), "messages")
        self.prompt_ids = _checked(lambda: served.policy.chat.prompt_ids(task), "messages")
        room = _checked(
            lambda: served.room(len(self.prompt_ids), request.limit, default_tokens), "max_tokens"
        )
        self.params = request.params(room)
        self.reply = Reply("chat.completion", served.name)
        self.answers = [ChatAnswer(served, request, i, self.reply.id) for i in range(request.n)]

    async def answer(self, http: HttpRequest) -> Response | dict[str, Any]:
        if self.request.stream:
            return StreamingResponse(_events(self._stream(http)), media_type="text/event-stream")
        asked, done = self._start(None)
        samples = await _wait_for(http, asked, done)
        choices = [
            await self._choice(answer, sample) for answer, sample in zip(self.answers, samples, strict=True)
        ]
        return self.reply.whole(choices, usage(len(self.prompt_ids), samples))

    def _start(self, on_token: Callable[[int, int], None] | None) -> tuple[Generation, Future[list[Sample]]]:
        request = self.request
        return self.served.generate(
            self.prompt_ids, self.params, num_samples=request.n, seed=request.seed, on_token=on_token
        )

    async def _choice(self, answer: ChatAnswer, sample: Sample) -> dict[str, Any]:
        for token in sample.token_ids:
            answer.add(token)
        answer.finish()
        return {
            "index": answer.index,
            "message": answer.message(),
            "finish_reason": answer.reason(sample),
            "logprobs": await self._logprobs(sample),
        }

    async def _logprobs(self, sample: Sample) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        whole = [*self.prompt_ids, *sample.token_ids]
        scores = await _wait(self.served.score(whole, self.request.top_logprobs))
        return chat_logprobs(self.served, sample, scores)

    async def _stream(self, http: HttpRequest) -> AsyncIterator[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        drawn: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

        def on_token(answer: int, token: int) -> None:
            loop.call_soon_threadsafe(drawn.put_nowait, (answer, token))

        asked, done = self._start(on_token)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(drawn.put_nowait, None))
        try:
            for answer in self.answers:
                yield self._event(answer, {"role": "assistant", "content": ""})
            while (one := await drawn.get()) is not None:
                for delta in self.answers[one[0]].add(one[1]):
                    yield self._event(self.answers[one[0]], delta)
                if await http.is_disconnected():
                    return
            samples = await _wait(done)
            for answer, sample in zip(self.answers, samples, strict=True):
                for delta in answer.finish():
                    yield self._event(answer, delta)
                yield self._event(answer, {}, answer.reason(sample), await self._logprobs(sample))
            if self.request.stream_options.include_usage:
                yield self.reply.chunk([], usage(len(self.prompt_ids), samples))
        finally:
            asked.cancelled = True

    def _event(
        self,
        answer: ChatAnswer,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": answer.index, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return self.reply.chunk([choice])


class _Completion:
    """One completion request on its way."""

    def __init__(self, served: Served, request: CompletionRequest, default_tokens: int) -> None:
        self.served, self.request = served, request
        vocabulary = served.policy.model.config.vocab_size
        self.prompts = [
            _checked(partial(served.encode, p), "prompt") if isinstance(p, str) else p
            for p in request.prompts
        ]
        if any(not ids for ids in self.prompts) or any(max(ids) >= vocabulary for ids in self.prompts):
            raise HTTPException(400, f"prompt: each needs tokens, numbered below {vocabulary}")
        self.rooms = [
            _checked(partial(served.room, len(ids), request.max_tokens, default_tokens), "max_tokens")
            for ids in self.prompts
        ]
        self.reply = Reply("text_completion", served.name)

    async def answer(self, http: HttpRequest) -> Response | dict[str, Any]:
        drawn = await asyncio.gather(*(self._drawn(number, http) for number in range(len(self.prompts))))
        choices = [
            await self._choice(len(drawn[0]) * number + k, ids, sample)
            for number, ids in enumerate(self.prompts)
            for k, sample in enumerate(drawn[number])
        ]
        used = usage(sum(map(len, self.prompts)), [sample for samples in drawn for sample in samples])
        if not self.request.stream:
            return self.reply.whole(choices, used)
        return StreamingResponse(_events(self._stream(choices, used)), media_type="text/event-stream")

    async def _drawn(self, number: int, http: HttpRequest) -> Sequence[Sample]:
        request, room = self.request, self.rooms[number]
        if not room:
            return [Sample((), (), "length", 0)] * request.n
        seed = None if request.seed is None else request.seed + number
        asked, done = self.served.generate(
            self.prompts[number], request.params(room), num_samples=request.n, seed=seed
        )
        return await _wait_for(http, asked, done)

    async def _choice(self, index: int, ids: Sequence[int], sample: Sample) -> dict[str, Any]:
        text = completion_text(self.served, self.request, sample)
        logprobs = None
        if self.request.logprobs is not None:
            whole, first = [*ids, *sample.token_ids], 0 if self.request.echo else len(ids)
            scores = await _wait(self.served.score(whole, self.request.logprobs))
            logprobs = completion_logprobs(self.served, whole, scores, first)
        if self.request.echo:
            text = self.served.policy.chat.text(ids) + text
        return {"index": index, "text": text, "finish_reason": sample.finish_reason, "logprobs": logprobs}

    async def _stream(
        self, choices: Sequence[dict[str, Any]], used: dict[str, int]
    ) -> AsyncIterator[dict[str, Any]]:
        """Whole answers, one event each: plain completions are asked by programs."""
        for choice in choices:
            yield self.reply.chunk([choice])
        if self.request.stream_options.include_usage:
            yield self.reply.chunk([], used)


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Server-sent events. What fails in the middle of a stream is its last event."""
    try:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    except HTTPException as error:
        yield f"data: {json.dumps(error_body(error.status_code, str(error.detail), None))}\n\n"
    yield "data: [DONE]\n\n"


async def _wait(done: Future[T]) -> T:
    """What the model's thread makes of a request. Raises HTTPException 500 where it failed."""
    try:
        return await asyncio.wrap_future(done)
    except (RuntimeError, ValueError) as error:
        raise HTTPException(500, f"the model failed: {error}") from error


async def _wait_for(http: HttpRequest, asked: Generation, done: Future[list[Sample]]) -> list[Sample]:
    """As `_wait`; when the client leaves, its answers end. Raises HTTPException 499, which nobody reads."""
    waiting = asyncio.ensure_future(_wait(done))
    while not (await asyncio.wait({waiting}, timeout=LOOKS_EVERY_S))[0]:
        if await http.is_disconnected():
            asked.cancelled = True
            waiting.cancel()
            raise HTTPException(499, "the client has left")
    return waiting.result()


def _checked(work: Callable[[], T], place: str) -> T:
    """`work`, or HTTPException 400: templates raise errors of many kinds on conversations they refuse."""
    try:
        return work()
    except Exception as error:
        raise HTTPException(400, f"{place}: {error}") from error
