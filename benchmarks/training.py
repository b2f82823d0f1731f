"""Training steps against TRL at its best settings here: micro batches of 16, no gradient checkpointing.

0.85M-parameter Qwen3, random weights, fp32. TRL runs its own loop; after each of its steps ours runs one, so
that both see the same machine.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from benchmarks.measure import Measurement, compare, cpu_time
from benchmarks.rollout import make_model, spread_lengths
from kascade.learning.advantages import group_advantages
from kascade.learning.example import Example
from kascade.learning.losses import per_token_weights
from kascade.learning.objectives import PolicyGradient, Supervised
from kascade.learning.trainer import Trainer
from kascade.recipe.schema import Optimizer
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

VOCABULARY = 512
PROMPTS, SAMPLES, NEW_TOKENS, PROMPT_TOKENS = 16, 8, 64, 7
MICRO_BATCH, MICRO_BATCH_TOKENS = 16, 2048
SFT_ROWS, SFT_LENGTHS = 128, (16, 160)
LONG_PROMPT, GROUP, LONG_ANSWERS, GROUPS, WITHOUT_ADVANTAGE = 512, 16, (16, 256), 5, 2
UNIT = "tokens / CPU s"
Rows = list[tuple[list[int], list[int]]]  # prompt and answer


def rounds_of(quick: bool) -> int:
    return 2 if quick else 5


def ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(2, VOCABULARY) for _ in range(count)]


def trainer_of(model: PreTrainedModel, micro_batch_tokens: int = MICRO_BATCH_TOKENS) -> Trainer:
    part = Optimizer(learning_rate=1e-6)
    return Trainer(model, part, total_steps=10**6, micro_batch_tokens=micro_batch_tokens, pad_id=0)


def example(prompt: Sequence[int], answer: Sequence[int], weight: float, advantage: float) -> Example:
    count = len(answer)
    return Example(
        [*prompt, *answer],
        [False] * len(prompt) + [True] * count,
        {
            "weights": torch.full((count,), weight),
            "advantages": torch.full((count,), advantage),
            "sampler_logprobs": torch.full((count,), -6.0),
        },
    )


# -- GRPO, sampling included ---------------------------------------------------------------------------


def grpo_step(quick: bool) -> list[Measurement]:
    rounds = rounds_of(quick)
    rng = random.Random(0)
    prompts = [ids(rng, PROMPT_TOKENS) for _ in range(PROMPTS)]
    own, other = beside_trl(grpo_of_trl(prompts, rounds + 1), partial(our_step, make_own_grpo(prompts)))
    tokens = PROMPTS * SAMPLES * NEW_TOKENS
    return [Measurement("GRPO step, 16 x 8 x 64 tokens", tokens / own, UNIT, tokens / other, "TRL")]


def make_own_grpo(prompts: Sequence[Sequence[int]]) -> tuple[NativeEngine, Trainer, Sequence[Sequence[int]]]:
    model = make_model("mini-qwen3")
    as_trl = MICRO_BATCH * (PROMPT_TOKENS + NEW_TOKENS)  # more at a time are faster and take more memory
    return NativeEngine(model, end_ids=[]), trainer_of(model, as_trl), prompts


def our_step(parts: tuple[NativeEngine, Trainer, Sequence[Sequence[int]]]) -> None:
    """Sample, reward the length of distinct tokens, update, hand the weights over."""
    engine, trainer, prompts = parts
    asked = [Prompt(tuple(prompt), SAMPLES, seed) for seed, prompt in enumerate(prompts)]
    drawn = engine.sample(asked, SamplingParams(max_new_tokens=NEW_TOKENS))
    examples = []
    for prompt, samples in zip(prompts, drawn, strict=True):
        rewards = torch.tensor([reward_of(sample.token_ids) for sample in samples]).double().numpy()
        advantages = group_advantages(rewards, rewards >= 0)
        examples += [
            example(prompt, sample.token_ids, 1 / (PROMPTS * SAMPLES * NEW_TOKENS), float(advantage))
            for sample, advantage in zip(samples, advantages, strict=True)
        ]
    trainer.update(0, examples, PolicyGradient(1.0))
    engine.load_weights(1)


def reward_of(token_ids: Sequence[int]) -> float:
    return len(set(token_ids)) / len(token_ids)


def grpo_of_trl(prompts: Sequence[Sequence[int]], steps: int) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        **common(steps), num_generations=SAMPLES, max_completion_length=NEW_TOKENS, beta=0.0,
        generation_kwargs={"min_new_tokens": NEW_TOKENS, "top_k": 0}, shuffle_dataset=False,
        gradient_accumulation_steps=PROMPTS * SAMPLES // MICRO_BATCH,
    )  # fmt: skip
    texts = [" ".join(f"w{token}" for token in prompt) for prompt in prompts]
    return GRPOTrainer(
        model=make_model("mini-qwen3"),
        reward_funcs=lambda completion_ids, **_: [reward_of(tokens) for tokens in completion_ids],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts * steps}),
        processing_class=make_tokenizer(),
    )


def common(steps: int) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": MICRO_BATCH, "max_steps": steps,
        "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "report_to": "none",
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-6,
        "dataloader_num_workers": 0,
    }  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<end>", *(f"w{i}" for i in range(2, VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")


class _Beside(TrainerCallback):  # type: ignore[misc]
    """Times each step of a transformers loop and runs `work` after it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._clock = cpu_time_since()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._clock = cpu_time_since()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.theirs.append(self._clock())
        self.ours.append(cpu_time(self.work))


def cpu_time_since() -> Callable[[], float]:
    """A function that says how many CPU seconds have passed since this call."""
    from kascade.clock import cpu_seconds

    start = cpu_seconds()
    return lambda: cpu_seconds() - start


def beside_trl(trl: Any, work: Callable[[], object]) -> tuple[float, float]:
    """Median CPU seconds of our step and of TRL's, the first of each left out."""
    beside = _Beside(work)
    trl.add_callback(beside)
    trl.train()
    return median(beside.ours[1:]), median(beside.theirs[1:])


# -- The update alone, where lengths are uneven and prompts long -----------------------------------------


def uneven_update(quick: bool, groups: int = GROUPS) -> list[Measurement]:
    """Prompts of 512, 16 answers of 16 to 256 each, two of five groups without advantage.

    TRL's loss on the same rollouts, in micro batches of 16 as its loader makes them: in random order.
    """
    rng = random.Random(0)
    lengths = spread_lengths(groups * GROUP, LONG_ANSWERS)
    rows: list[tuple[list[int], list[int], float]] = []
    for group in range(groups):
        prompt = ids(rng, LONG_PROMPT)
        for _ in range(GROUP):
            advantage = 0.0 if group < WITHOUT_ADVANTAGE else rng.gauss(0, 1)
            rows.append((prompt, ids(rng, lengths[len(rows)]), advantage))
    weights = per_token_weights(lengths)
    examples = [
        example(prompt, answer, weight, advantage)
        for (prompt, answer, advantage), weight in zip(rows, weights, strict=True)
        if advantage
    ]
    trainer = trainer_of(make_model("mini-qwen3"))
    trl = grpo_of_trl([ids(rng, PROMPT_TOKENS)] * PROMPTS, 1)
    trl.create_optimizer()
    trl.current_gradient_accumulation_steps = groups
    rng.shuffle(rows)
    own, other = compare(
        lambda: trainer.update(0, examples, PolicyGradient(1.0)),
        partial(update_trl, trl, rows),
        1 if quick else 3,
    )
    tokens = sum(lengths)
    name = "GRPO update, prompt 512, 16 answers of 16 to 256, 40% of groups without advantage"
    return [Measurement(name, tokens / own, UNIT, tokens / other, "TRL")]


def update_trl(trl: Any, rows: Sequence[tuple[list[int], list[int], float]]) -> None:
    total = torch.tensor(sum(len(answer) for _, answer, _ in rows))
    longest = max(len(answer) for _, answer, _ in rows)  # TRL pads a generation batch as a whole
    for start in range(0, len(rows), MICRO_BATCH):
        part = rows[start : start + MICRO_BATCH]
        inputs = {
            "prompt_ids": torch.tensor([prompt for prompt, _, _ in part]),
            "prompt_mask": torch.ones(len(part), LONG_PROMPT, dtype=torch.long),
            "completion_ids": torch.tensor([a + [0] * (longest - len(a)) for _, a, _ in part]),
            "completion_mask": torch.tensor([[1] * len(a) + [0] * (longest - len(a)) for _, a, _ in part]),
            "advantages": torch.tensor([advantage for _, _, advantage in part]),
            "num_items_in_batch": total,
        }
        trl._compute_loss(trl.model, inputs).backward()
    torch.nn.utils.clip_grad_norm_(trl.model.parameters(), 1.0)
    trl.optimizer.step()
    trl.optimizer.zero_grad()


# -- SFT ----------------------------------------------------------------------------------------------


def supervised(quick: bool) -> list[Measurement]:
    """128 sequences of 16 to 160 tokens, all learnt from; TRL pads each micro batch to its longest."""
    rounds = rounds_of(quick)
    own, other = beside_trl(sft_of_trl(rounds + 1), make_own_sft())
    tokens = sum(spread_lengths(SFT_ROWS, SFT_LENGTHS))
    name = "SFT step, 128 x 16 to 160 tokens"
    return [Measurement(name, tokens / own, UNIT, tokens / other, "TRL, padded")]


def sft_sequences() -> list[list[int]]:
    rng = random.Random(0)
    return [ids(rng, length) for length in spread_lengths(SFT_ROWS, SFT_LENGTHS)]


def make_own_sft() -> Callable[[], object]:
    """One of our steps."""
    sequences = sft_sequences()
    weights = per_token_weights([len(sequence) - 1 for sequence in sequences])
    examples = [example(s[:1], s[1:], w, 0.0) for s, w in zip(sequences, weights, strict=True)]
    trainer = trainer_of(make_model("mini-qwen3"))
    return lambda: trainer.update(0, examples, Supervised())


def sft_of_trl(steps: int) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **common(steps), gradient_accumulation_steps=SFT_ROWS // MICRO_BATCH, max_length=None, packing=False
    )
    return SFTTrainer(
        model=make_model("mini-qwen3"),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": sft_sequences() * steps}),
        processing_class=make_tokenizer(),
    )


# -- MOPD beside our own GRPO ---------------------------------------------------------------------------
