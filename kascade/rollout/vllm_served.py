"""vLLM behind a server, in its own process and environment: weights come to it without a folder."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from kascade.errors import Fault, TrainingStopped, UserError
from kascade.recipe.vllm import VLLM, ServedVLLM
from kascade.rollout.canary import Rows
from kascade.rollout.handover import WeightSource
from kascade.rollout.vllm import Continuation, Request
from kascade.rollout.vllm_process import Savable, start_server
from kascade.rollout.weight_sync import Control, WeightSender

T = TypeVar("T")
R = TypeVar("R")
WHERE = "model.rollout.vllm.served"
REMEDY = "start it as docs/distributed.md says"


class RemoteVLLM:
    """A vLLM server as `vllm.AnyVLLM`."""

    def __init__(self, source: WeightSource, settings: VLLM, config: Savable, tokenizer: Savable) -> None:
        """config, tokenizer: all that a server that is started here is told of the model.

        Raises UserError when the server was not started as it must be, or cannot be.
        """
        assert settings.served is not None
        self._source, self._settings, self._served = source, settings, settings.served
        self._dtype = source.computes_in() if settings.dtype == "auto" else settings.dtype
        url = self._served.url or start_server(self._served, settings, self._dtype, config, tokenizer)
        self._control = Control(url.rstrip("/"), self._served.timeout_s)
        if faults := server_faults(self._control, self._served, self._dtype):
            raise UserError(faults)
        self._name = str(self._control.get("v1/models")["data"][0]["id"])
        self._holds = ""

    def dtype(self) -> str:
        return self._dtype

    def take(self, version: int, unchanged: Callable[[], None]) -> None:
        """The label is new each time: a server that others use too, or that began anew, has another one."""
        label = f"{version}-{secrets.token_hex(8)}"
        self._source.send(WeightSender(self._control, self._served.transfer, self._dtype, label))
        unchanged()
        self._holds = label

    def extend(self, requests: Sequence[Request]) -> list[Continuation]:
        """Raises TrainingStopped when the server holds weights of another hand-over."""
        self._prove()
        return _together(self._served, self._extend, requests)

    def score(self, rows: Rows) -> list[list[float]]:
        self._prove()
        return _together(self._served, self._score, rows)

    def _prove(self) -> None:
        found = self._control.get("weight_info")["weight_version"]
        if found != self._holds:
            raise TrainingStopped(
                f"the vLLM server at {self._control.url} holds weights {found!r}, and {self._holds!r} was "
                "handed over: it began anew, or another run uses it. To do: give each run its own, and resume"
            )

    def _extend(self, request: Request) -> Continuation:
        body: dict[str, Any] = {
            "prompt": request.token_ids,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "seed": request.seed,
            "stop_token_ids": request.stop_token_ids,
            "ignore_eos": True,  # what ends an answer is in stop_token_ids
            "logprobs": 0,  # of the token drawn alone
            "return_token_ids": True,
        }
        if request.stop:
            body |= {"stop": request.stop, "include_stop_str_in_output": True}
        (choice,) = self._complete(body)
        logprobs = choice["logprobs"]["token_logprobs"]
        return Continuation(choice["token_ids"], logprobs, choice["finish_reason"] == "stop")

    def _score(self, row: Sequence[int]) -> list[float]:
        (choice,) = self._complete({"prompt": list(row), "max_tokens": 1, "prompt_logprobs": 0})
        steps = choice["prompt_logprobs"][1:]
        return [step[str(token)]["logprob"] for token, step in zip(row[1:], steps, strict=True)]

    def _complete(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._control.post("v1/completions", {"model": self._name, **body})[
            "choices"
        ]
        return found


def _together(served: ServedVLLM, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on all items, in order, as many at once as the recipe allows."""
    with ThreadPoolExecutor(min(served.requests, max(1, len(items)))) as pool:
        return list(pool.map(work, items))


def server_faults(control: Control, served: ServedVLLM, dtype: str | None) -> list[Fault]:
    """In what a server was not started as it must be. dtype: None: it is not known yet.

    Raises TrainingStopped when it does not answer.
    """
    told = control.get("server_info?config_format=json")["vllm_config"]
    transfer, model = told.get("weight_transfer_config") or {}, told["model_config"]
    its_dtype = str(model["dtype"]).removeprefix("torch.")
    wanted = (
        ("--weight-transfer-config backend", transfer.get("backend"), served.transfer),
        ("--logprobs-mode", model["logprobs_mode"], "processed_logprobs"),
        ("--dtype", its_dtype, dtype or its_dtype),
    )
    return [
        Fault(f"{WHERE} {control.url}", f"{name} is {found!r}", allowed=str(right), remedy=REMEDY)
        for name, found, right in wanted
        if found != right
    ]
