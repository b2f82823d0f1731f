"""DPO: loss and gradient against a closed form and TRL, a stage that was killed, and a whole cascade."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from test_steps import guarded, start
from toy_cascade import make_model, make_policy, make_run, stage, weights

from kascade.learning.metrics import read_metrics
from kascade.learning.trainer import collate
from kascade.models.logprobs import token_logprobs
from kascade.recipe.load import load_recipe
from kascade.recipe.plan import make_plan
from kascade.recipe.schema import Stage
from kascade.rollout.policy import Policy
from kascade.stages.dpo import answer_scores, pair_examples, pair_margins, train_dpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.steps import steps
from kascade.storage.training_folder import TrainingFolder

PARTS: TypeAdapter[Any] = TypeAdapter(Stage)
RATE = {"learning_rate": 1e-2, "weight_decay": 0.0}


def preference_rows(folder: Path, count: int = 40) -> Path:
    """Prompts of letters; the answer with a is preferred, and some answers are longer than others."""
    path = folder / "pairs.jsonl"
    rows = [
        {
            "prompt": f"c d {'efgh'[n % 4]} {'abcdefgh'[n % 8]}",
            "chosen": "a a a" if n % 2 else "a a",
            "rejected": "b b b" if n % 3 else "b",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def dpo_stage(rows: Path, **more: Any) -> dict[str, Any]:
    source = {"environment": "demonstrations", "path": str(rows), "hold_out": False}
    common = {"steps": 6, "save_every": 2, "optimizer": RATE, "pairs_per_step": 4}
    return {"name": "dpo", "kind": "dpo", "data": [{"source": source}], **common, **more}


def training_of(policy: Policy, rows: Path, folder: Path | None = None, **more: Any) -> Training[Any]:
    after = more.pop("after_step", lambda done: None)
    part = PARTS.validate_python(dpo_stage(rows, **more))
    tasks = training_pool(part.data, 0, "dpo")
    place = TrainingFolder(folder) if folder else None
    return Training(part, policy, tasks, folder=place, after_step=after)


def test_the_loss_is_its_closed_form() -> None:
    own, reference = torch.tensor([-2.0, -3.0, -1.0, -5.0]), torch.tensor([-2.5, -2.0, -1.5, -4.5])
    found = pair_margins(own, reference, beta=0.5)
    assert found.margin.tolist() == pytest.approx([0.5 * (0.5 + 1.0), 0.5 * (0.5 + 0.5)])
    expected = sum(math.log(1 + math.exp(-margin)) for margin in (0.75, 0.5)) / 2
    assert float(found.loss) == pytest.approx(expected, abs=1e-6)
    assert found.metrics()["accuracy"] == 1.0


@pytest.mark.parametrize(("normalized", "kind"), [(False, "sigmoid"), (True, "sigmoid_norm")])
def test_loss_and_gradient_are_those_of_trl(normalized: bool, kind: str, tmp_path: Path) -> None:
    """TRL computes a batch at once; ours is cut into micro-batches, between the answers of a pair too."""
    policy, reference = make_policy(), make_model(7)
    rows = preference_rows(tmp_path)
    work = training_of(
        policy, rows, beta=0.3, length_normalized=normalized, micro_batch_tokens=12, steps=1, pairs_per_step=5
    )
    examples, _ = pair_examples(work, work.tasks.draw(0, 5))
    expected, gradients = trl_loss(policy, reference, examples, kind, tmp_path)

    found: dict[str, torch.Tensor] = {}
    trainer = work.make_trainer()
    trainer.optimizer.register_step_pre_hook(lambda *_: found.update(_gradients_of(policy.model)))
    trainer.part = trainer.part.model_copy(update={"max_grad_norm": 1e9})
    work.trainer, work.folder = trainer, TrainingFolder(tmp_path)
    train_dpo(work, reference)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line["loss"] == pytest.approx(expected, abs=1e-5)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


def _gradients_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: one.grad.detach().clone() for name, one in named if one.grad is not None}


def trl_loss(
    policy: Policy, reference: Any, examples: Any, kind: str, folder: Path
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of TRL's DPO trainer on the same pairs, for a copy of the policy's weights."""
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    model = make_model()
    model.load_state_dict(policy.model.state_dict())
    options = trl.DPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, report_to=[], beta=0.3, loss_type=[kind], bf16=False,
        disable_dropout=True, gradient_checkpointing=False, per_device_train_batch_size=5,
    )  # fmt: skip
    given = datasets.Dataset.from_list([{"prompt": "c", "chosen": "a", "rejected": "b"}] * 5)
    tokenizer = policy.tokenizer
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, args=options, train_dataset=given, processing_class=tokenizer
    )
    ordered = [*examples[0::2], *examples[1::2]]
    longest = max(len(one.token_ids) for one in ordered)
    rows = [(list(one.token_ids), list(one.scored), longest - len(one.token_ids)) for one in ordered]
    inputs = {
        "input_ids": torch.tensor([ids + [0] * left for ids, _, left in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * left for ids, _, left in rows]),
        "completion_mask": torch.tensor([[int(s) for s in scored] + [0] * left for _, scored, left in rows]),
    }
    loss = trainer._compute_loss(trainer.model, inputs, False)
    loss.backward()
    return float(loss.detach()), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def test_scores_are_sums_or_means_of_the_answers_tokens(tmp_path: Path) -> None:
    policy = make_policy()
    for normalized in (False, True):
        work = training_of(policy, preference_rows(tmp_path), length_normalized=normalized)
        examples, _ = pair_examples(work, work.tasks.draw(0, 2))
        batch, _ = collate(policy.model, examples[:1], policy.pad_id)
        alone = token_logprobs(policy.model, batch).logprobs
        expected = alone.mean() if normalized else alone.sum()
        found = float(answer_scores(policy.model, examples, work)[0])
        assert found == pytest.approx(float(expected.detach()), abs=1e-5)


def test_pairs_that_cannot_teach_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = preference_rows(tmp_path)
    policy = make_policy()
    before = weights(policy)
    train_dpo(training_of(policy, rows, tmp_path / "short", max_tokens=3, steps=1))
    assert all(torch.equal(before[name], value) for name, value in weights(policy).items())
    (line,) = read_metrics(tmp_path / "short" / "metrics.jsonl")
    assert line["too_long"] == 4 and line["note"] == "update skipped: no preference pair to learn from"


class Killed(Exception):
    pass


def test_a_killed_stage_ends_with_the_same_weights(tmp_path: Path) -> None:
    rows = preference_rows(tmp_path)
    whole = make_policy()
    train_dpo(training_of(whole, rows, tmp_path / "whole"))

    def kill(done: int) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        train_dpo(training_of(make_policy(), rows, tmp_path / "cut", after_step=kill))
    again = make_policy()
    train_dpo(training_of(again, rows, tmp_path / "cut"))
    expected = weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in weights(again).items())
    curves = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert curves[0][0]["margin"] == pytest.approx(0, abs=1e-5) and curves[0][-1]["margin"] > 0.1


def test_sft_then_dpo_is_trained_guarded_and_reported(tmp_path: Path) -> None:
    """Recipe, plan, preflight, guard, report and curves take a stage that none of them knows."""
    rows = preference_rows(tmp_path)
    both = stage("sft", "sft", "say_a", "say_b", steps=10)
    layout = make_run(tmp_path, both, dpo_stage(rows, steps=10, beta=0.2))
    accepted = guarded(layout, "sft", start(layout))
    made = guarded(layout, "dpo", accepted)
    assert guarded(layout, "dpo", accepted) == made, "what is finished is found again"
    (path,) = layout.root.glob("training/dpo/train-*/metrics.jsonl")
    curve = read_metrics(path)
    assert curve[-1]["accuracy"] == 1.0 and curve[-1]["margin"] > curve[0]["margin"] + 0.5
    steps.report(str(layout.root))
    page = layout.report.read_text(encoding="utf-8")
    assert "DPO" in page and "10 steps of 4 preference pairs" in page and "margin" in page


def test_a_plan_and_a_pipeline_take_a_dpo_stage(tmp_path: Path) -> None:
    from pipelines.compile import compile_recipe

    recipe = load_recipe("sft-dpo")
    planned = make_plan(recipe).stages[-1]
    assert planned.title == "DPO" and planned.samples_per_step == 2 * recipe.stages[-1].pairs_per_step
    compile_recipe(recipe, tmp_path / "pipeline.yaml")
    assert "dpo" in (tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
