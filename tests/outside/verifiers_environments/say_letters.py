"""One answer, two rewards with weights and a metric: how much of the answer is the wanted letter."""

from __future__ import annotations

import random

import verifiers.v1 as vf


class LettersData(vf.TaskData):
    wanted: str


class LettersTask(vf.Task[LettersData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=0.8)
    async def share(self, trace: vf.Trace) -> float:
        said = (trace.last_reply or "").split()
        return said.count(self.data.wanted) / len(said) if said else 0.0

    @vf.reward(weight=0.2)
    async def first(self, trace: vf.Trace) -> float:
        return float((trace.last_reply or "").strip().startswith(self.data.wanted))

    @vf.metric
    async def words(self, trace: vf.Trace) -> float:
        return float(len((trace.last_reply or "").split()))


class LettersTaskset(vf.Taskset[LettersTask, vf.TasksetConfig]):
    def load(self):
        rng = random.Random(0)
        for _ in range(64):
            prompt = " ".join(["a", *rng.choices("abcdefgh", k=4)])
            yield LettersTask(LettersData(prompt=prompt, wanted="a"), self.config.task)


__all__ = ["LettersTaskset"]
