"""GRPO on reasoning-gym tasks with a small Qwen3 from random weights: the reward rises within a minute."""

import tempfile
from pathlib import Path

from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

from kascade.data.byte_tokenizer import byte_tokenizer
from kascade.data.chat import ChatFormat
from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import GRPO, DataSource, Mix, Optimizer, RLStage, Sampling
from kascade.rollout.policy import Policy
from kascade.rollout.pools import TaskPool
from kascade.stages.grpo import train_grpo
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder

set_seed(0)
tokenizer = byte_tokenizer()
model = Qwen3ForCausalLM(
    Qwen3Config(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, head_dim=32, pad_token_id=0, eos_token_id=1)
)  # fmt: skip
policy = Policy.around(model, tokenizer, ChatFormat(tokenizer))
source = DataSource(environment="reasoning_gym", options={"dataset": "gcd"}, levels=(0, 0), count=300)
stage = RLStage(
    name="gcd", kind="multi_domain_rl", data=(Mix(source=source),), steps=30, prompts_per_step=16,
    rollouts_per_prompt=32, sampling=Sampling(max_new_tokens=4), optimizer=Optimizer(learning_rate=3e-3),
    grpo=GRPO(min_usable_groups=1),  # few answers are right at first: learn from each
)  # fmt: skip
folder = TrainingFolder(Path(tempfile.mkdtemp()))
tasks = TaskPool.from_mixes(stage.data, split="train", seed=0)
train_grpo(Training(stage, policy, tasks, folder=folder))
for line in read_metrics(folder.curves):
    print(line["step"], line["reward"])  # noqa: T201
