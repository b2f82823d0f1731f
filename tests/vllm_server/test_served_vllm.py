"""A real vLLM server on a CPU: weights without a folder, samples, the canary, two trainers that feed it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from toy_cascade import mix

from kascade.errors import TrainingStopped, UserError
from kascade.learning.metrics import read_metrics
from kascade.models.adapters import add_adapter
from kascade.models.load import load_model, load_tokenizer
from kascade.recipe.adapter import Adapter
from kascade.recipe.schema import ModelPart, RLStage, Rollout
from kascade.rollout.canary import logprobs_of
from kascade.rollout.policy import Policy
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.rollout.vllm_process import start_server
from kascade.stages.grpo import train_grpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.run_paths import TrainingFolder

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
EXACT = 1e-5  # nats between two engines in float32
UPDATES = 4
PROMPTS = [Prompt((2, 5, 6, 7, 3), 6, seed=11), Prompt((2, 9, 3), 4, seed=12, greedy=True)]


def policy_of(folder: Path, rollout: Rollout) -> Policy:
    return Policy.load(folder, ModelPart(source=str(folder), precision="fp32", rollout=rollout))


@torch.no_grad()
def worst_gap(policy: Policy, drawn: list[list[Sample]], prompts: list[Prompt]) -> float:
    """Between what vLLM said of its samples and what the trainer's model says."""
    worst = 0.0
    for prompt, group in zip(prompts, drawn, strict=True):
        for sample in group:
            (mine,) = logprobs_of(policy.model, [[*prompt.token_ids, *sample.token_ids]])
            theirs = torch.tensor(sample.logprobs)
            worst = max(worst, float((mine[-len(theirs) :] - theirs).abs().max()))
    return worst


@torch.no_grad()
def move(policy: Policy, size: float) -> None:
    torch.manual_seed(int(size * 1000))
    for parameter in policy.model.parameters():
        parameter.add_(size * torch.randn_like(parameter))


def test_weights_arrive_without_a_folder_and_samples_are_scored_alike(dense: Path, rollout: Rollout) -> None:
    policy = policy_of(dense, rollout)
    params = SamplingParams(8, temperature=1.0)
    before = policy.engine.sample(PROMPTS, params)
    assert [len(group) for group in before] == [6, 5]
    assert worst_gap(policy, before, PROMPTS) <= EXACT
    assert policy.engine.sample(PROMPTS, params) == before  # seeds decide, not batches
    assert policy.engine.sample(PROMPTS[::-1], params)[::-1] == before
    move(policy, 0.05)
    policy.sync(3)
    after = policy.engine.sample(PROMPTS, params)
    assert {sample.weights_version for group in after for sample in group} == {3}
    assert worst_gap(policy, after, PROMPTS) <= EXACT
    stale = worst_gap(policy, before, PROMPTS)
    assert stale > 1000 * EXACT, stale  # the weights did move


def test_stops_budgets_and_greedy_answers_are_the_engines_own(dense: Path, rollout: Rollout) -> None:
    policy = policy_of(dense, rollout)
    drawn = policy.engine.sample(PROMPTS, SamplingParams(12, stop_ids=((5,), (6,))))
    for sample in (sample for group in drawn for sample in group):
        ends = [place for place, token in enumerate(sample.token_ids) if token in (1, 5, 6)]
        assert ends == ([len(sample.token_ids) - 1] if sample.finish_reason == "stop" else [])
    greedy = drawn[1][0].token_ids
    again = policy.engine.sample([Prompt((2, 9, 3), 0, seed=99, greedy=True)], SamplingParams(12))
    assert again[0][0].token_ids[: len(greedy)] == greedy
    with pytest.raises(UserError, match="single tokens"):
        policy.engine.sample(PROMPTS, SamplingParams(3, stop_ids=((4, 5),)))


def test_truncated_sampling_keeps_to_the_likeliest_tokens(dense: Path, rollout: Rollout) -> None:
    policy = policy_of(dense, rollout)
    prompts = [Prompt((2, 5, 3), 64, seed=5)]
    drawn = policy.engine.sample(prompts, SamplingParams(1, top_k=2))
    assert 1 <= len({sample.token_ids for sample in drawn[0]}) <= 2
    shares = {round(2.718281828459045**logprob, 5) for sample in drawn[0] for logprob in sample.logprobs}
    assert sum(shares) == pytest.approx(1, abs=1e-3)  # of the distribution that was drawn from


def test_an_adapter_is_handed_over_merged(dense: Path, rollout: Rollout) -> None:
    model = load_model(dense, precision="fp32")
    add_adapter(model, Adapter(rank=4), 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    policy = policy_of(dense, rollout)
    adapted = Policy.around(model, load_tokenizer(dense), policy.chat, rollout)
    drawn = adapted.engine.sample(PROMPTS, SamplingParams(8))
    assert worst_gap(adapted, drawn, PROMPTS) <= EXACT < worst_gap(policy, drawn, PROMPTS)


def test_a_server_that_others_use_too_is_noticed(dense: Path, rollout: Rollout) -> None:
    mine = policy_of(dense, rollout)
    other = policy_of(dense, rollout)  # the same server: it has one model
    with pytest.raises(TrainingStopped, match="another run uses it"):
        mine.engine.sample(PROMPTS, SamplingParams(2))
    assert worst_gap(other, other.engine.sample(PROMPTS, SamplingParams(2)), PROMPTS) <= EXACT


def test_a_server_that_was_started_otherwise_is_refused(dense: Path, rollout: Rollout) -> None:
    served, tokenizer = rollout.vllm.served, load_tokenizer(dense)
    assert served is not None
    config = load_model(dense, precision="fp32").config
    url = start_server(served, rollout.vllm, "float32", config, tokenizer)
    settings = rollout.vllm.model_dump(mode="json")
    settings |= {"dtype": "bfloat16", "served": {"url": url, "transfer": "nccl"}}
    with pytest.raises(UserError) as caught:
        policy_of(dense, Rollout.model_validate({"engine": "vllm", "vllm": settings}))
    assert ["--dtype" in fault.what for fault in caught.value.faults] == [False, True]
    assert caught.value.faults[0].allowed == "nccl"


def test_the_canary_sees_experts_that_a_reload_leaves_old(experts: Path, rollout: Rollout) -> None:
    """vllm 0.32 on a CPU prepares experts once: what is handed over later never counts."""
    with pytest.raises(TrainingStopped, match=r"version 0: .* nats apart .* To do: ") as caught:
        policy_of(experts, rollout)
    gap = float(str(caught.value).split("tokens ")[1].split(" ")[0])
    assert gap > 0.05


def stage_of(trainers: int) -> RLStage:
    return RLStage.model_validate(
        {
            "kind": "if_rl", "name": "say", "data": [mix("say_a")], "steps": UPDATES, "save_every": 2,
            "prompts_per_step": 4, "rollouts_per_prompt": 6, "sampling": {"max_new_tokens": 4},
            "optimizer": {"learning_rate": 1e-2}, "grpo": {"min_usable_groups": 1},
            "limits": {"max_logprob_gap": EXACT}, "workers": {"trainers": trainers},
        }
    )  # fmt: skip


def test_two_trainers_feed_one_server_for_four_updates(dense: Path, rollout: Rollout, tmp_path: Path) -> None:
    """No whole copy anywhere: each trainer holds a half, and the server takes it layer by layer."""
    pytest.importorskip("ray")
    from kascade.actors.workers import Place, stage_workers

    stage, part = stage_of(2), ModelPart(source=str(dense), precision="fp32", rollout=rollout)
    policy = Policy.load(dense, part, held_elsewhere=True)
    place = Place(dense, tmp_path / "versions")
    os.environ.pop("RAY_ADDRESS", None)
    with stage_workers(policy, stage, part, place) as (spread, trainer):
        tasks, folder = training_pool(stage.data, 0, "say"), TrainingFolder(tmp_path)
        train_grpo(Training(stage, spread, tasks, "say", folder=folder, trainer=trainer))
    assert spread.version == UPDATES
    rows = read_metrics(tmp_path / "metrics.jsonl")
    gaps = [row["logprob_gap"] for row in rows]
    assert len(gaps) == UPDATES and max(gaps) <= EXACT, gaps
    final = load_model(policy.final, precision="fp32")  # type: ignore[arg-type]
    start = load_model(dense, precision="fp32")
    moved = [(a - b).abs().max() for a, b in zip(final.parameters(), start.parameters(), strict=True)]
    assert max(moved) > 1e-3
