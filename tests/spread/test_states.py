"""Training states and exports of several processes: whole, in any layout again, and never half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spread_states
import torch
from launching import launch
from safetensors.torch import load_file
from spread_cases import CONFIGS, save_models
from transformers import AutoModelForCausalLM

from kascade.models.load import load_model

pytestmark = pytest.mark.slow
MODELS = ("qwen3-tied", "qwen3-moe", "nemotron-h-mtp")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    save_models(folder)
    return folder


@pytest.fixture(scope="module")
def same_layout(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    launch(2, "spread_states.py", models, folder, "whole")
    return folder


def test_resume_on_the_same_layout_gives_the_same_bits(same_layout: Path) -> None:
    """The state was written while training went on: nothing of the later steps is in it."""
    found = json.loads((same_layout / "found.json").read_text())
    assert found == {name: {"step": 2, "equal": True} for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_export_has_the_hubs_names_and_every_bit(same_layout: Path, models: Path, name: str) -> None:
    exported = same_layout / f"{name}-export"
    names = {path: set(load_file(path / "model.safetensors")) for path in (exported, models / name)}
    assert names[exported] == names[models / name]
    (exported / "tokenizer.json").write_text("{}")
    loaded = load_model(exported, precision="fp32")
    trained = torch.load(same_layout / f"{name}-export.pt")
    for parameter, tensor in loaded.named_parameters():
        assert torch.equal(tensor, trained[parameter]), parameter
    loaded.save_pretrained(same_layout / f"{name}-again")
    again, own = (load_file(same_layout / f"{name}-{kind}/model.safetensors") for kind in ("again", "export"))
    assert all(torch.equal(again[key], own[key]) for key in again.keys() | own.keys())
    configs = [json.loads((folder / "config.json").read_text()) for folder in (exported, models / name)]
    assert configs[0] == configs[1]


def test_any_number_of_processes_goes_on(models: Path, tmp_path: Path) -> None:
    """4 write, 2 go on, then 1, then 4: each finds the bits that were left, with the losses of one."""
    alone = [spread_states.main(models, tmp_path / "alone", "go-on") for _ in range(4)]
    chain = []
    for processes in (4, 2, 1, 4):
        if processes == 1:
            chain.append(spread_states.main(models, tmp_path / "chain", "go-on"))
        else:
            (tmp_path / "chain").mkdir(exist_ok=True)
            launch(processes, "spread_states.py", models, tmp_path / "chain", "go-on")
            chain.append(json.loads((tmp_path / "chain" / "found.json").read_text()))
    for step, (found, expected) in enumerate(zip(chain, alone, strict=True)):
        for name in MODELS:
            assert found[name]["step"] == step
            assert found[name]["equal"], (step, name)
            assert found[name]["loss"] == pytest.approx(expected[name]["loss"], rel=1e-6)
    last = [torch.load(tmp_path / kind / f"{MODELS[2]}-weights.pt") for kind in ("chain", "alone")]
    for name, tensor in last[1].items():
        assert float((last[0][name] - tensor).norm() / tensor.norm().clamp(min=1e-9)) < 1e-4, name


def test_a_writer_that_is_killed_leaves_the_state_before_it(models: Path, tmp_path: Path) -> None:
    launch(2, "spread_states.py", models, tmp_path, "go-on")
    launch(2, "spread_states.py", models, tmp_path, "die", fails=True)
    folder = tmp_path / MODELS[0]
    states = sorted(path.name for path in folder.iterdir())
    assert states == ["step-00000001", "step-00000002"]
    assert not (folder / "step-00000002" / "state.json").exists()
    found = spread_states.main(models, tmp_path, "go-on")
    assert found[MODELS[0]]["step"] == 1
    assert found[MODELS[0]]["equal"]


def test_every_family_is_among_the_models() -> None:
    kinds = {AutoModelForCausalLM.from_config(CONFIGS[name]()).config.model_type for name in MODELS}
    assert kinds == {"qwen3", "qwen3_moe", "nemotron_h"}
