"""The judge that a recipe names, set up for a step of a run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kascade.environments.judging.endpoint import EndpointJudge
from kascade.environments.judging.judge import Conversation, Judge, JudgeError, use_judge
from kascade.errors import UserError
from kascade.recipe.judge_model import JudgeModel
from kascade.recipe.schema import ModelPart
from kascade.task import Message, Task


def set_up_judge(part: JudgeModel | None, folder: Path | None) -> None:
    """Let environments ask the judge of `part`; its cache and transcript go to `folder`."""
    use_judge(None if part is None else open_judge(part, folder))


def open_judge(part: JudgeModel, folder: Path | None) -> Judge:
    return EndpointJudge(part, folder) if part.url is not None else CheckpointJudge(part)


@dataclass(slots=True)
class CheckpointJudge:
    """A model of this machine as judge, loaded with the first question and asked one at a time."""

    part: JudgeModel
    concurrency: int = 1
    _policy: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, conversation: Conversation, *, draw: int = 0) -> str:
        """A sampled answer (temperature 0: the greedy one). Raises JudgeError when it cannot be loaded."""
        from kascade.rollout.types import Prompt, SamplingParams
        from kascade.seeds import derive_seed

        with self._lock:
            policy = self._loaded()
            messages = tuple(Message(role=_role(turn), content=turn["content"]) for turn in conversation)
            task = Task("judge", "chat", messages, {})
            prompt = Prompt(tuple(policy.chat.prompt_ids(task)), 1, derive_seed("judge", task.id, draw))
            params = SamplingParams(self.part.max_tokens, self.part.temperature, self.part.top_p)
            ((sample,),) = policy.engine.sample([prompt], params)
            return str(policy.chat.decode(sample.token_ids))

    def _loaded(self) -> Any:
        from kascade.models.load import resolve_source
        from kascade.rollout.policy import Policy

        if self._policy is None:
            try:
                folder = resolve_source(self.part.model)
                self._policy = Policy.load(folder, ModelPart(source=self.part.model))
            except (UserError, OSError) as error:
                raise JudgeError(f"the judge {self.part.model} cannot be loaded: {error}") from error
        return self._policy


def _role(turn: Mapping[str, str]) -> Any:
    if turn["role"] not in ("system", "user", "assistant"):
        raise JudgeError(f"a checkpoint judge knows no role {turn['role']!r}; set judge.style: prompt")
    return turn["role"]
