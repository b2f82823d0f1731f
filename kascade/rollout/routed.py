"""Sampling that remembers which experts were used, so that the trainer can use the same ones.

Runs the model's own modules, because the lean decoders route by themselves. See `kascade.models.routing`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kascade.models.routing import RoutingRecorder, record_routing
from kascade.rollout.decoder import CacheDecoder
from kascade.rollout.ending import Ending
from kascade.rollout.native import NativeEngine
from kascade.rollout.rows import Record, Rows
from kascade.rollout.types import Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _RoutedDecoder(CacheDecoder):
    """`CacheDecoder` that keeps the experts of its last forward, [t, L, K] for each row of logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.recorder: RoutingRecorder | None = None
        self.used: list[Tensor] = []

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        logits = super().admit(prompts, copies)
        parts = zip(torch.chunk(self._taken(), len(prompts)), prompts, copies, strict=True)
        self.used = [part[len(part) - len(prompt) :] for part, prompt, n in parts for _ in range(n)]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        logits = super().step(tokens)
        self.used = list(torch.split(self._taken(), 1))
        return logits

    def _taken(self) -> Tensor:
        if self.recorder is None:
            raise RuntimeError("nothing records the routing")
        return self.recorder.take().cpu()


class RoutedEngine(NativeEngine):
    """The native engine, with `Sample.routing`; slower, because no lean decoder serves it."""

    def __init__(self, model: PreTrainedModel, **settings: Any) -> None:
        """settings: as `NativeEngine`, without a decoder."""
        self._routed = _RoutedDecoder(model)
        self._used: dict[int, list[Tensor]] = defaultdict(list)
        super().__init__(model, decoder=self._routed, **settings)

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """As `NativeEngine.sample`. Raises ValueError for a model without known routers, too."""
        with record_routing(self._model) as recorder:
            self._routed.recorder = recorder
            self._used.clear()
            try:
                groups = super().sample(prompts, params)
                numbers = iter(range(sum(map(len, groups))))
                return [
                    [replace(sample, routing=torch.cat(self._used[next(numbers)])) for sample in group]
                    for group in groups
                ]
            finally:
                self._routed.recorder, self._routed.used = None, []
                self._used.clear()

    def _draw(  # noqa: PLR0917 - as in the engine
        self, rows: Rows, news: slice, logits: Tensor, params: SamplingParams, ending: Ending, record: Record
    ) -> None:
        own = zip(rows.answers[news].tolist(), rows.finished[news].tolist(), self._routed.used, strict=True)
        for number, finished, used in own:
            if not finished:
                self._used[number].append(used)
        super()._draw(rows, news, logits, params, ending, record)
