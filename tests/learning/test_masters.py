"""float32 masters: small steps of a bfloat16 model add up, and a state holds all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_trainer import make_examples
from tiny_models import tiny_qwen3

from kascade.learning.example import Columns, Terms
from kascade.learning.masters import Masters
from kascade.learning.objectives import Supervised
from kascade.learning.trainer import Trainer
from kascade.models.batch import TokenBatch
from kascade.recipe.schema import Optimizer

UPDATES = 100


class Uphill:
    """A loss whose gradient is the same in every update: each weight's own sign."""

    def __init__(self, model: torch.nn.Module) -> None:
        draw = torch.Generator().manual_seed(3)
        self.signs = [torch.randn(p.shape, generator=draw).sign() for p in model.parameters()]

    def __call__(self, model: torch.nn.Module, batch: TokenBatch, columns: Columns) -> Terms:
        terms = [(p.float() * s).sum() for p, s in zip(model.parameters(), self.signs, strict=True)]
        return Terms(torch.stack(terms).sum() / 1e4, {})


def moved(rate: float, dtype: torch.dtype) -> tuple[float, float]:
    """Mean distance of the weights that are optimised after 100 updates, and the share that moved at all."""
    model = tiny_qwen3().to(dtype)
    part = Optimizer(learning_rate=rate, weight_decay=0.0)
    trainer = Trainer(model, part, total_steps=UPDATES, micro_batch_tokens=64, pad_id=0)
    before = [trainer.masters.of(p).detach().float().clone() for p in model.parameters()]
    objective = Uphill(model)
    for step in range(UPDATES):
        trainer.update(step, make_examples(0)[:1], objective)
    after = [trainer.masters.of(p).detach() for p in model.parameters()]
    gone = torch.cat([(b - a).abs().flatten() for a, b in zip(before, after, strict=True)])
    rounded = [p.detach().float() - trainer.masters.of(p).detach() for p in model.parameters()]
    assert all(bool((r.abs() <= m.abs() * 2**-8 + 1e-12).all()) for r, m in zip(rounded, after, strict=True))
    return float(gone.mean()), float((gone > 0).float().mean())


@pytest.mark.parametrize("rate", [2e-6, 3e-6, 5e-5])
def test_bfloat16_moves_as_far_as_float32(rate: float) -> None:
    far, _ = moved(rate, torch.float32)
    near, share = moved(rate, torch.bfloat16)
    assert far == pytest.approx(UPDATES * rate, rel=0.05)
    assert near >= 0.95 * far
    assert share > 0.99


def test_without_masters_bfloat16_stands_still() -> None:
    """What the masters are for: the same updates on the weights themselves."""
    model = tiny_qwen3().to(torch.bfloat16)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6, weight_decay=0.0)
    objective = Uphill(model)
    for _ in range(UPDATES):
        objective(model, None, {}).loss.backward()  # type: ignore[arg-type, no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    gone = torch.cat(
        [(b - a.detach()).abs().flatten() for a, b in zip(model.parameters(), before, strict=True)]
    )
    assert float(gone.float().mean()) < 0.2 * UPDATES * 2e-6


def test_frozen_weights_have_no_master() -> None:
    model = tiny_qwen3().to(torch.bfloat16).requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    masters = Masters(model)
    assert masters.of(model.lm_head.weight).dtype == torch.float32
    layer = model.model.layers[0].mlp.up_proj.weight
    assert masters.of(layer) is layer


def test_a_state_holds_the_masters(tmp_path: Path) -> None:
    def trainer() -> Trainer:
        part = Optimizer(learning_rate=1e-5)
        return Trainer(tiny_qwen3().to(torch.bfloat16), part, total_steps=9, micro_batch_tokens=64, pad_id=0)

    whole, first, second = trainer(), trainer(), trainer()
    for step in range(6):
        whole.update(step, make_examples(step), Supervised())
    for step in range(3):
        first.update(step, make_examples(step), Supervised())
    first.save(tmp_path, 3)
    first.finish_saving()
    for step in range(second.load(tmp_path), 6):
        second.update(step, make_examples(step), Supervised())
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(whole.masters.of(a), second.masters.of(b))
        assert torch.equal(a, b)
