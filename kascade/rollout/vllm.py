"""Rollouts by vLLM behind the engine's face: token ids in, token ids and processed log-probabilities out.

vLLM is imported when the engine first takes over weights. It reads them from a folder of safetensors,
which works in one process or many; the folder is written anew for each version.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from kascade.errors import Fault, TrainingStopped, UserError
from kascade.rollout.sampling import stream_key
from kascade.rollout.types import FinishReason, Prompt, Sample, SamplingParams

MAX_SEED = 2**63  # vLLM hands seeds to torch generators


@dataclass(frozen=True, slots=True)
class VLLMSettings:
    """What the engine asks of vLLM; see `recipe.parts.VLLM` for the meaning of each."""

    tensor_parallel_size: int
    gpu_memory_utilization: float
    max_model_len: int | None
    dtype: Literal["auto", "bfloat16", "float32"]


@dataclass(slots=True)
class _Growing:
    """An answer in the making: which one, what it has so far, how it ended."""

    prompt: Prompt
    key: int
    greedy: bool
    token_ids: list[int]
    logprobs: list[float]
    forced: slice | None = None  # tokens that were put there
    ended: FinishReason = "length"


class VLLMEngine:
    """Samples with vLLM. Every answer is a request with a seed of its own, so samples do not depend on how
    they are batched; vLLM's prefix cache computes their common prompt once.
    """

    def __init__(
        self,
        folder: Path | None,
        save: Callable[[Path], None],
        *,
        checksum: Callable[[], int],
        settings: VLLMSettings,
        end_ids: Sequence[int],
        think_end_ids: Sequence[int] = (),
    ) -> None:
        """folder: where weights travel through, None: one of its own, removed with it. save: writes model and
        tokenizer to a folder, as they are now in training. checksum: `weights_checksum` of that model.

        Raises UserError when vllm is not installed.
        """
        self._vllm: Any = import_vllm()
        if folder is None:
            self._own = tempfile.TemporaryDirectory(prefix="kascade-vllm-")
            folder = Path(self._own.name)
        self._folder = folder
        self._save, self._checksum, self._settings = save, checksum, settings
        self.weights_checksum = 0
        self._end_ids, self._think_end_ids = list(end_ids), list(think_end_ids)
        self._llm: Any = None
        self._version = 0

    def load_weights(self, version: int) -> None:
        """Hand the current weights to vLLM; what it computed with older ones (cached prefixes) is dropped.

        `weights_checksum` is then that of what was handed over: vLLM keeps weights in a form of its own, with
        other bits. Raises TrainingStopped when the weights changed while they were written.
        """
        handed_over = self._checksum()
        self._save(self._folder)
        if self._checksum() != handed_over:
            raise TrainingStopped(f"weights version {version} changed while they were handed to vLLM")
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
        self._version, self.weights_checksum = version, handed_over

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its answers in order, a greedy one first.

        Raises ValueError for an empty prompt, weights never loaded, or a budget without think_end_ids;
        UserError for stop sequences of several tokens, which vLLM does not have.
        """
        if self._llm is None:
            raise ValueError("load_weights comes first")
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        if params.thinking_budget is not None and not self._think_end_ids:
            raise ValueError("a thinking budget needs the tokens that end a think block")
        if any(len(ids) != 1 for ids in params.stop_ids):
            remedy = "stop at a text (stop_texts) or use the native engine"
            raise UserError(Fault("stop_ids", "vLLM stops at single tokens only", remedy=remedy))
        groups = [list(_answers(prompt)) for prompt in prompts]
        everyone = [answer for group in groups for answer in group]
        budget = params.thinking_budget
        thinking = [answer for answer in everyone if budget is not None and answer.prompt.thinking]
        others = [answer for answer in everyone if budget is None or not answer.prompt.thinking]
        self._extend(others, params, params.max_new_tokens)
        if budget is not None and thinking:
            self._extend(thinking, params, min(budget, params.max_new_tokens))
            open_ended = [answer for answer in thinking if answer.ended == "length"]
            for answer in open_ended:
                self._close_thinking(answer, params.max_new_tokens)
            self._extend(open_ended, params, params.max_new_tokens)
        return [[self._sample_of(answer) for answer in group] for group in groups]

    def _sample_of(self, answer: _Growing) -> Sample:
        drawn = None
        if answer.forced is not None:
            put = range(len(answer.token_ids))[answer.forced]
            drawn = tuple(place not in put for place in range(len(answer.token_ids)))
        return Sample(tuple(answer.token_ids), tuple(answer.logprobs), answer.ended, self._version, drawn)

    def _close_thinking(self, answer: _Growing, max_new_tokens: int) -> None:
        """At the budget: append the end of the think block, unless the model has closed it itself."""
        if _holds(answer.token_ids, self._think_end_ids):
            return
        start = len(answer.token_ids)
        put = self._think_end_ids[: max_new_tokens - start]
        answer.forced = slice(start, start + len(put))
        answer.token_ids += put

    def _extend(self, answers: Sequence[_Growing], params: SamplingParams, length: int) -> None:
        """Let answers grow to `length` tokens, or until they end."""
        growing = [answer for answer in answers if len(answer.token_ids) < length]
        if not growing:
            return
        requests = [{"prompt_token_ids": [*answer.prompt.token_ids, *answer.token_ids]} for answer in growing]
        how = [self._request_params(answer, params, length - len(answer.token_ids)) for answer in growing]
        outputs = self._llm.generate(requests, how, use_tqdm=False)
        for answer, output in zip(growing, outputs, strict=True):
            (completion,) = output.outputs
            answer.token_ids += completion.token_ids
            answer.logprobs += [
                step[token].logprob
                for token, step in zip(completion.token_ids, completion.logprobs, strict=True)
            ]
            answer.ended = "stop" if completion.finish_reason == "stop" else "length"

    def _request_params(self, answer: _Growing, params: SamplingParams, max_tokens: int) -> Any:
        greedy = answer.greedy or params.temperature == 0
        return self._vllm.SamplingParams(
            n=1,
            max_tokens=max_tokens,
            temperature=0.0 if greedy else params.temperature,
            top_p=1.0 if greedy else params.top_p,
            top_k=0 if greedy or params.top_k is None else params.top_k,
            seed=stream_key(answer.key, len(answer.token_ids)) % MAX_SEED,
            stop_token_ids=[*self._end_ids, *(ids[0] for ids in params.stop_ids)],
            stop=list(params.stop_texts) or None,
            include_stop_str_in_output=bool(params.stop_texts),
            detokenize=bool(params.stop_texts),
            ignore_eos=True,  # what ends an answer is in stop_token_ids
            logprobs=0,  # of the token drawn alone
        )


def _answers(prompt: Prompt) -> Iterable[_Growing]:
    if prompt.greedy:
        yield _Growing(prompt, prompt.seed, True, [], [])
    for sample in range(prompt.num_samples):
        yield _Growing(prompt, stream_key(prompt.seed, sample), False, [], [])


def _holds(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[i : i + len(part)]) == list(part) for i in range(len(ids) - len(part) + 1))


def import_vllm() -> Any:
    """The module. Raises UserError when it is not installed."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # nothing leaves the cluster
    try:
        return import_module("vllm")
    except ImportError as error:
        remedy = "install vllm on the GPU machine, or set model.rollout.engine: native"
        raise UserError(Fault("model.rollout.engine", f"vllm is not here: {error}", remedy=remedy)) from error
