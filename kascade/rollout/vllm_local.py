"""vLLM in this process. It reads weights from a folder of safetensors, written anew for each version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from kascade.errors import Fault, UserError
from kascade.rollout.canary import Rows
from kascade.rollout.vllm import Continuation, Request


@dataclass(frozen=True, slots=True)
class VLLMSettings:
    """What the engine asks of vLLM; see `recipe.vllm.VLLM` for the meaning of each."""

    tensor_parallel_size: int
    gpu_memory_utilization: float
    max_model_len: int | None
    dtype: Literal["auto", "bfloat16", "float32"]


class LocalVLLM:
    """vLLM is imported at once, and loaded when it first takes over weights."""

    def __init__(
        self, folder: Path | None, save: Callable[[Path], None], computes_in: str, settings: VLLMSettings
    ) -> None:
        """folder: where weights travel through, None: one of its own, removed with it. save: writes model and
        tokenizer to a folder, as they are now in training. computes_in: the type in which that model does so.

        Raises UserError when vllm is not installed.
        """
        self._vllm: Any = import_vllm()
        if folder is None:
            self._own = tempfile.TemporaryDirectory(prefix="kascade-vllm-")
            folder = Path(self._own.name)
        self._folder, self._save, self._settings = folder, save, settings
        self._computes_in = computes_in
        self._llm: Any = None

    def dtype(self) -> str:
        return self._computes_in if self._settings.dtype == "auto" else self._settings.dtype

    def take(self, version: int, unchanged: Callable[[], None]) -> None:
        self._save(self._folder)
        unchanged()
        if self._llm is None:
            self._llm = self._vllm.LLM(
                model=str(self._folder),
                tensor_parallel_size=self._settings.tensor_parallel_size,
                gpu_memory_utilization=self._settings.gpu_memory_utilization,
                max_model_len=self._settings.max_model_len,
                dtype=self._settings.dtype,
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                seed=0,
            )
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(self._folder)})
            self._llm.reset_prefix_cache()

    def extend(self, requests: Sequence[Request]) -> list[Continuation]:
        prompts = [{"prompt_token_ids": request.token_ids} for request in requests]
        how = [self._params_of(request) for request in requests]
        return [_continuation(one) for one in self._llm.generate(prompts, how, use_tqdm=False)]

    def score(self, rows: Rows) -> list[list[float]]:
        asked = self._vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        outputs = self._llm.generate(prompts, [asked] * len(rows), use_tqdm=False)
        return [
            [step[token].logprob for token, step in zip(row[1:], output.prompt_logprobs[1:], strict=True)]
            for row, output in zip(rows, outputs, strict=True)
        ]

    def _params_of(self, request: Request) -> Any:
        return self._vllm.SamplingParams(
            n=1,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            stop_token_ids=request.stop_token_ids,
            stop=request.stop or None,
            include_stop_str_in_output=bool(request.stop),
            detokenize=bool(request.stop),
            ignore_eos=True,  # what ends an answer is in stop_token_ids
            logprobs=0,  # of the token drawn alone
        )


def _continuation(output: Any) -> Continuation:
    (completion,) = output.outputs
    logprobs = [
        step[token].logprob for token, step in zip(completion.token_ids, completion.logprobs, strict=True)
    ]
    return Continuation(completion.token_ids, logprobs, completion.finish_reason == "stop")


def import_vllm() -> Any:
    """The module. Raises UserError when it is not installed."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # nothing leaves the cluster
    try:
        return import_module("vllm")
    except ImportError as error:
        remedy = (
            "install vllm on the GPU machine, name a server (model.rollout.vllm.served), or set "
            "model.rollout.engine: native"
        )
        raise UserError(Fault("model.rollout.engine", f"vllm is not here: {error}", remedy=remedy)) from error
