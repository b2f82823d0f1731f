"""Adapters train and teach on shards as in one process, and merge into what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import spread_adapters
import torch
from launching import launch
from safetensors.torch import load_file
from spread_cases import save_models

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("processes", [2, 4])  # four: two replicas of two shards
def test_adapters_on_shards(processes: int, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    save_models(tmp_path / "models")
    spread_adapters.save_teachers(tmp_path / "models", tmp_path)
    expected = spread_adapters.main(tmp_path / "models", tmp_path)
    launch(processes, "spread_adapters.py", tmp_path / "models", tmp_path)
    parts = [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(processes)]
    dropped = [part["dropped"] for part in (expected, *parts)]
    assert all(torch.equal(first, again) and 0 < int((first == 0).sum()) < 64 for first, again in dropped)
    assert torch.equal(dropped[0][0], dropped[1][0])  # the first process draws as one alone does
    assert not torch.equal(dropped[1][0], dropped[2][0])
    for name in spread_adapters.NAMES:
        own, found = expected[name], [part[name] for part in parts]
        assert found[0]["losses"] == pytest.approx(own["losses"], abs=1e-6)
        for key, tensor in own["weights"].items():
            assert torch.equal(found[0]["weights"][key], found[1]["weights"][key]), key
            assert float((found[0]["weights"][key] - tensor).norm() / tensor.norm()) < 1e-4, key
        for who, values in own["scores"].items():
            for part in found:
                assert torch.allclose(torch.cat(part["scores"][who]), torch.cat(values), atol=1e-5), who
        assert not torch.allclose(
            torch.cat(own["scores"]["frozen1"]), torch.cat(own["scores"]["frozen2"]), atol=1e-2
        )
        merged = [load_file(tmp_path / f"{name}-merged-{n}" / "model.safetensors") for n in (1, processes)]
        assert merged[0].keys() == merged[1].keys()
        for key, tensor in merged[0].items():
            assert torch.allclose(tensor, merged[1][key], atol=1e-5), key
