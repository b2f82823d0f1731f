"""A toy domain, a tiny model and a run folder: real parts, small enough to learn in seconds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from kascade.data.chat import ChatFormat
from kascade.environments.base import Environment
from kascade.recipe.schema import Recipe
from kascade.rollout.policy import Policy
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain, Grade, Message, Task

LETTERS = tuple("abcdefgh")
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}<user> {{ message.content }} <bot>"
    "{% else %} {{ message.content }} <end>{% endif %}{% endfor %}"
)


class Letters(Environment):
    """Say the wanted letter, which comes first in the prompt; the reward is its share of the answer."""

    wanted: ClassVar[str] = "a"

    def pose(self, rng: random.Random, level: float) -> Task:
        return self._task(" ".join([self.wanted, *(rng.choice(LETTERS) for _ in range(4))]))

    def from_row(self, row: Mapping[str, Any]) -> Task:
        return self._task(str(row["words"]))

    def _task(self, words: str) -> Task:
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=(Message(role="user", content=words),),
            fields={},
            reference=" ".join([self.wanted] * 3),
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [self._grade(answer) for answer in answers]

    def _grade(self, answer: str) -> Grade:
        said = answer.split()
        return Grade(said.count(self.wanted) / len(said) if said else 0.0)


class SayA(Letters):
    name = "say_a"
    domain: ClassVar[Domain] = "math"


class SayB(Letters):
    name = "say_b"
    domain: ClassVar[Domain] = "knowledge"
    wanted = "b"


class AlsoB(SayB):
    """The same skill under another domain: what a benchmark of `say_b` can lose without data of its own."""

    name = "also_b"
    domain: ClassVar[Domain] = "chat"


class Prefer(Letters):
    """The answer with more a is preferred."""

    name = "prefer_a"
    domain: ClassVar[Domain] = "chat"

    def compare(self, task: Task, first: str, second: str) -> tuple[float, float, float]:
        a, b = (1 + 4 * self._grade(answer).reward for answer in (first, second))
        return a, b, min(6.0, max(1.0, 3.5 - (a - b)))


class Broken(Letters):
    """A grader that always fails."""

    name = "broken"
    domain: ClassVar[Domain] = "code"

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [Grade.failed("no sandbox") for _ in answers]


ENVIRONMENTS = {cls.name: f"toy_cascade:{cls.__name__}" for cls in (SayA, SayB, AlsoB, Prefer, Broken)}


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<end>", "<user>", "<bot>", "<unk>", *LETTERS]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
        additional_special_tokens=["<user>", "<bot>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(LETTERS) + 5, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def make_policy(seed: int = 0) -> Policy:
    tokenizer = make_tokenizer()
    return Policy.around(make_model(seed), tokenizer, ChatFormat(tokenizer))


def save_base(folder: Path, seed: int = 0) -> Path:
    make_model(seed).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def mix(environment: str) -> dict[str, Any]:
    return {"source": {"environment": environment, "count": 200}}


RATE = {"learning_rate": 1e-2, "weight_decay": 0.0}
ROLLOUTS = {"prompts_per_step": 8, "rollouts_per_prompt": 8, "sampling": {"max_new_tokens": 4}}
RECOVERY = {"steps": 24, "optimizer": RATE, "prompts_per_step": 16, "full_vocabulary": True}
# For tests that need a recovery to succeed, on every processor: rounding decides which path a training takes.
SURE: dict[str, Any] = {"recovery": {**RECOVERY, "steps": 96}, "confirm_samples": 16}


def stage(name: str, kind: str, *environments: str, **more: Any) -> dict[str, Any]:
    """A stage of a recipe with the toy's sizes."""
    common = {"steps": 8, "optimizer": RATE, "save_every": 3}
    sizes = {"batch_size": 16} if kind == "sft" else ROLLOUTS
    data = [mix(environment) for environment in environments]
    return {"name": name, "kind": kind, "data": data, **common, **sizes, **more}


def make_run(
    folder: Path,
    *stages: dict[str, Any],
    adapter: dict[str, Any] | None = None,
    tasks: int = 40,
    **guard: Any,
) -> RunFolder:
    """A run folder as the launcher leaves it: with a resolved recipe."""
    benchmarks = [
        {
            "name": name,
            "source": {"environment": name},
            "tasks": tasks,
            "sampling": {"max_new_tokens": 4},
            "greedy": name == "say_a",
        }
        for name in ("say_a", "say_b")
    ]
    recipe = Recipe.model_validate(
        {
            "kascade": 1,
            "name": "toy",
            "model": {"source": str(save_base(folder / "base"))},
            "threads": 1,
            "adapter": adapter,
            "stages": list(stages),
            "benchmarks": benchmarks,
            "guard": {"weak_exams": "warn", "confirm_samples": 4, "recovery": RECOVERY, **guard},
        }
    )
    layout = RunFolder(folder / "run")
    write_text(layout.resolved_recipe, recipe.model_dump_json())
    return layout
