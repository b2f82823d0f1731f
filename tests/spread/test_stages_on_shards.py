"""DPO, and both DPO and SFT of an adapter, learn under torchrun what they learn in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import spread_stages
import torch
from launching import launch
from safetensors.torch import load_file
from test_dpo import preference_rows
from toy_cascade import save_base

from kascade.environments import BUILTIN

pytestmark = pytest.mark.slow


def test_stages_on_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_stages, "BUILTIN", dict(BUILTIN))
    for name, place in spread_stages.ENVIRONMENTS.items():
        monkeypatch.setitem(BUILTIN, name, place)
    torch.set_num_threads(1)
    save_base(tmp_path / "model")
    preference_rows(tmp_path)
    spread_stages.save_adapter(tmp_path / "model", tmp_path / "adapter")
    alone = spread_stages.main(tmp_path)
    launch(2, "spread_stages.py", tmp_path)
    found = torch.load(tmp_path / "losses-2.pt")
    start = load_file(tmp_path / "model" / "model.safetensors")
    for name, (losses, _) in alone.items():
        assert len(losses) == 6 and losses[-1] < losses[0]
        learnt, held = found[name]
        assert learnt == pytest.approx(losses, abs=1e-5), name
        assert held == (2 if name == "dpo" else 1), f"{name}: an adapter's reference is over the same base"
        one, two = (load_file(tmp_path / f"{name}-{n}" / "model.safetensors") for n in (1, 2))
        moved = [key for key, tensor in one.items() if not torch.equal(tensor, start[key])]
        assert len(moved) > 5
        for key in moved:
            assert float((two[key] - one[key]).norm() / one[key].norm()) < 1e-4, (name, key)
