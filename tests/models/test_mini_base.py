"""The shipped miniature is what its facts say, and the command that made it works."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from kascade.environments import BUILTIN, get_environment
from kascade.environments.base import generate_tasks
from kascade.miniature.corpus import MIXTURE
from kascade.miniature.pretrain import Phase, Pretraining, pretrain
from kascade.models.load import resolve_source
from kascade.storage.checkpoint import file_digest

FOLDER = resolve_source("builtin://mini-nemotron-h")
LARGEST = 8 * 2**20  # bytes


def facts() -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))
    return found


def test_the_weights_are_those_that_were_pretrained() -> None:
    assert file_digest(FOLDER / "model.safetensors") == facts()["sha256"]
    assert (FOLDER / "model.safetensors").stat().st_size <= LARGEST
    assert facts()["settings"] == json.loads(json.dumps(asdict(Pretraining())))


def test_it_loads_as_any_causal_model() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert model.config.model_type == "nemotron_h"
    kinds = set(model.config.layers_block_type)
    assert kinds == {"linear_attention", "full_attention", "moe"}
    assert sum(p.numel() for p in model.parameters()) == facts()["parameters"]


def test_its_tokenizer_keeps_any_text_and_covers_the_small_world() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    text = "Grüße, 世界! 1234 \t x"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    for name in BUILTIN:
        tasks = generate_tasks(get_environment(name), split="validation", count=20, seed=0)
        text = "".join(task.messages[-1]["content"] + (task.reference or "") for task in tasks)
        assert len(tokenizer.encode(text)) < 0.8 * len(text), name


@pytest.mark.slow
def test_the_command_makes_a_miniature(tmp_path: Path) -> None:
    phases = (Phase(4000, 2e-3, MIXTURE, curriculum_documents=100), Phase(3000, 1e-3, MIXTURE))
    part = Pretraining(phases=phases, tokenizer_documents=300, threads=1)
    made = [pretrain(part, tmp_path / name) for name in ("first", "second")]
    assert made[0]["sha256"] == made[1]["sha256"]  # seeded
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert model.config.vocab_size == made[0]["settings"]["vocab_size"]
