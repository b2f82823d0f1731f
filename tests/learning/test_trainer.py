"""The update: the same however it is cut, refused when not finite, resumed bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_nemotron_h, tiny_qwen3
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.errors import TrainingStopped
from kascade.learning.buffer import Batch
from kascade.learning.example import Example
from kascade.learning.losses import per_token_weights, reverse_kl
from kascade.learning.metrics import append_metrics, read_metrics, truncate_metrics
from kascade.learning.objectives import FullDistillation, PolicyGradient, SampledDistillation, Supervised
from kascade.learning.scoring import score_examples
from kascade.learning.state import StateWriter, load_state, save_state
from kascade.learning.trainer import Trainer, collate
from kascade.models.logprobs import scored_hidden, token_logprobs
from kascade.recipe.schema import Optimizer

MODELS = [tiny_qwen3, tiny_nemotron_h]


def make_examples(seed: int, count: int = 6) -> list[Example]:
    rng = random.Random(seed)
    lengths = [rng.randint(3, 12) for _ in range(count)]
    weights = per_token_weights(lengths)
    return [
        Example(
            token_ids=[rng.randrange(2, 32) for _ in range(4 + length)],
            scored=[False] * 4 + [True] * length,
            columns={
                "weights": torch.full((length,), weight),
                "advantages": torch.tensor([rng.gauss(0, 1) for _ in range(length)]),
                "sampler_logprobs": torch.full((length,), -3.0),
            },
        )
        for length, weight in zip(lengths, weights, strict=True)
    ]


def trainer_of(model: PreTrainedModel, budget: int = 64, rate: float = 1e-2) -> Trainer:
    return Trainer(model, Optimizer(learning_rate=rate), total_steps=10, micro_batch_tokens=budget, pad_id=0)


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("make", MODELS)
def test_the_loss_does_not_depend_on_the_micro_batches(make: Callable[[], PreTrainedModel]):
    found = [
        trainer_of(make(), budget).update(0, make_examples(0), PolicyGradient(1.0)) for budget in (16, 10_000)
    ]
    for name in ("loss", "grad_norm", "entropy", "logprob_gap", "tokens"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4, abs=1e-6), name


def test_supervised_updates_lower_the_loss():
    trainer = trainer_of(tiny_qwen3())
    losses = [trainer.update(step, make_examples(0), Supervised())["loss"] for step in range(10)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("poison", ["weights", "advantages"])
def test_what_is_not_finite_stops_before_the_weights_change(poison: str):
    model = tiny_qwen3()
    before, examples = weights_of(model), make_examples(0)
    examples[2].columns[poison][0] = float("nan")
    with pytest.raises(TrainingStopped, match="loss is nan"):
        trainer_of(model).update(7, examples, PolicyGradient(1.0))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_check_can_forbid_the_update():
    model = tiny_qwen3()
    before = weights_of(model)

    def refuse(metrics: object) -> None:
        raise TrainingStopped("no")

    with pytest.raises(TrainingStopped):
        trainer_of(model).update(0, make_examples(0), PolicyGradient(1.0), check=refuse)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_a_student_that_is_its_teacher_learns_nothing(full: bool, make: Callable[[], PreTrainedModel]):
    model, teacher = make(), make()
    examples = make_examples(0)
    score = scored_hidden if full else (lambda m, b: token_logprobs(m, b).logprobs)
    taught = score_examples(teacher, examples, score, micro_batch_tokens=64, pad_id=0)
    own = score_examples(
        model, examples, lambda m, b: token_logprobs(m, b).logprobs, micro_batch_tokens=64, pad_id=0
    )
    for example, values, sampler in zip(examples, taught, own, strict=True):
        example.columns["teacher_hidden" if full else "teacher_logprobs"] = values
        example.columns["teacher"] = torch.zeros(len(values), dtype=torch.long)
        example.columns["sampler_logprobs"] = sampler
    objective = (
        FullDistillation(1.0, 0.5, 2.0, [teacher.get_output_embeddings()])
        if full
        else SampledDistillation(1.0, 0.5, 2.0)
    )
    metrics = trainer_of(model).update(0, examples, objective)
    assert metrics["grad_norm"] < 1e-4
    assert abs(metrics["reverse_kl"]) < 1e-5
    assert metrics["dropped"] == 0


@pytest.mark.parametrize("make", MODELS)
def test_resume_gives_the_same_weights_bit_for_bit(make: Callable[[], PreTrainedModel], tmp_path: Path):
    whole = trainer_of(make())
    for step in range(6):
        whole.update(step, make_examples(step), PolicyGradient(1.0))
    first = trainer_of(make())
    for step in range(3):
        first.update(step, make_examples(step), PolicyGradient(1.0))
    save_state(tmp_path, 3, first.state)
    second = trainer_of(make(), rate=1e-2)
    for step in range(load_state(tmp_path, second.state), 6):
        second.update(step, make_examples(step), PolicyGradient(1.0))
    expected = weights_of(whole.model)
    assert all(torch.equal(expected[name], parameter) for name, parameter in second.model.named_parameters())


def test_a_damaged_state_is_passed_over_and_two_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer = trainer_of(tiny_qwen3())
    for step in (1, 2, 3):
        trainer.update(step, make_examples(step), Supervised())
        save_state(tmp_path, step, trainer.state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    weights = tmp_path / "step-00000003" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    fresh = trainer_of(tiny_qwen3())
    assert load_state(tmp_path, fresh.state) == 2
    (tmp_path / "step-00000003" / "state.json").unlink()
    assert load_state(tmp_path, fresh.state) == 2
    assert "step-00000003" in caplog.text
    assert load_state(tmp_path / "nothing", fresh.state) == 0


def test_a_state_is_that_of_its_step_and_loads_as_a_model(tmp_path: Path):
    """What is trained while the thread writes does not reach the file."""
    trainer = trainer_of(tiny_nemotron_h())
    trainer.update(0, make_examples(0), Supervised())
    before = weights_of(trainer.model)
    with StateWriter(tmp_path) as writer:
        writer.save(1, trainer.state)
        trainer.update(1, make_examples(1), Supervised())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "step-00000001", dtype=torch.float32)
    assert all(torch.equal(before[name], parameter) for name, parameter in loaded.named_parameters())


def test_what_the_writing_thread_raises_is_raised(tmp_path: Path):
    trainer = trainer_of(tiny_qwen3())
    trainer.update(0, make_examples(0), Supervised())
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(OSError), StateWriter(tmp_path / "state") as writer:
        writer.save(1, trainer.state)


def test_a_batch_of_rollouts_comes_back_as_it_was():
    examples = make_examples(0)
    batch = Batch(4, examples, {"reward": 0.1, "note": "ü"})
    again = Batch.from_tensors(batch.tensors())
    assert (again.number, again.metrics) == (4, {"reward": 0.1, "note": "ü"})
    for found, expected in zip(again.examples, examples, strict=True):
        assert (found.token_ids, found.scored) == (expected.token_ids, expected.scored)
        assert all(torch.equal(found.columns[name], values) for name, values in expected.columns.items())
    assert Batch.from_tensors(Batch(0, [], {}).tensors()).examples == []


def test_full_distillation_has_the_gradient_of_its_definition():
    """Two teachers, a temperature, and tokens outside the importance range, against autograd."""
    model, teachers = tiny_qwen3(), [tiny_qwen3(1), tiny_qwen3(2)]
    batch, columns = collate(model, make_examples(0), 0)
    count = len(batch.targets)
    rng = torch.Generator().manual_seed(0)
    columns = {
        **columns,
        "teacher": torch.arange(count) % 2,
        "teacher_hidden": torch.randn(count, 32, generator=rng),
        "sampler_logprobs": -4 * torch.rand(count, generator=rng),
    }
    heads = [teacher.get_output_embeddings() for teacher in teachers]
    terms = FullDistillation(0.7, 0.5, 2.0, heads)(model, batch, columns)
    terms.loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    student = (model.get_output_embeddings()(scored_hidden(model, batch)) / 0.7).log_softmax(-1)
    states = columns["teacher_hidden"]
    logits = [heads[row % 2](states[row]).detach() / 0.7 for row in range(count)]
    taught = torch.stack(logits).log_softmax(-1)
    chosen = student.gather(1, batch.targets[:, None]).squeeze(1).detach()
    ratio = (chosen - columns["sampler_logprobs"]).exp()
    kept = (ratio >= 0.5) & (ratio <= 2.0)
    assert 0 < kept.sum() < count
    expected = (columns["weights"] * kept * reverse_kl(student, taught)).sum()
    expected.backward()
    torch.testing.assert_close(terms.loss, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_metrics_are_cut_back_to_the_resumed_step(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for step in range(4):
        append_metrics(path, step, {"loss": float(step), "broken": float("nan")})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    truncate_metrics(path, 2)
    append_metrics(path, 2, {"note": "again"})
    assert read_metrics(path) == [
        {"step": 0, "loss": 0.0},
        {"step": 1, "loss": 1.0},
        {"step": 2, "note": "again"},
    ]
