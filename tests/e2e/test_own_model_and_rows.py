"""A user's own model (a tiny random Qwen3) and own NeMo-Gym rows, trained on for a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from kascade.miniature.config import mini_config
from kascade.models.load import load_tokenizer, resolve_source, save_model
from kascade.recipe.load import load_recipe
from kascade.steps import steps
from kascade.storage.checkpoint import verify
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nemo-gym"
SERVERS = ("instruction_following", "mcqa", "structured_outputs")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def own_rows(folder: Path) -> dict[str, Path]:
    """Rows of our own in the published shape, four for each server."""
    fields = {
        "instruction_following": {
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"num_words": 30, "relation": "less than"}],
        },
        "mcqa": {"options": [{"A": "red"}, {"B": "blue"}], "expected_answer": "B"},
        "structured_outputs": {"schema_str": json.dumps(SCHEMA), "schema_type": "json"},
    }
    paths = {}
    for server, extra in fields.items():
        rows = [{"responses_create_params": {"input": f"{server} {n}"}, **extra} for n in range(20)]
        paths[server] = folder / f"{server}.jsonl"
        paths[server].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


def published_rows() -> dict[str, Path]:
    return {server: PUBLISHED / server / "example.jsonl" for server in SERVERS}


def tiny_qwen3(folder: Path) -> Path:
    tokenizer = load_tokenizer(resolve_source("builtin://mini-nemotron-h"))
    config = mini_config("mini-qwen3", len(tokenizer), tokenizer.pad_token_id, None, tokenizer.eos_token_id)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 1, 32, 64
    config.layer_types = config.layer_types[:1]
    config.max_position_embeddings = 32768  # some published prompts are long, and bytes are tokens here
    save_model(AutoModelForCausalLM.from_config(config), tokenizer, folder)
    return folder


def recipe_file(folder: Path, rows: dict[str, Path], model: Path) -> Path:
    mixes = "".join(f"      - source: {{environment: {name}, path: {path}}}\n" for name, path in rows.items())
    text = f"""kascade: 1
name: own
model: {{source: {model}}}
guard: {{weak_exams: warn}}
stages:
  - kind: multi_domain_rl
    name: rl
    steps: 2
    prompts_per_step: 4
    rollouts_per_prompt: 2
    sampling: {{max_new_tokens: 12}}
    limits: {{max_truncated: null}}
    grpo: {{min_usable_groups: 1}}
    data:
{mixes}benchmarks:
  - {{name: knowledge, source: {{environment: mcqa}}, tasks: 4, sampling: {{max_new_tokens: 4}}}}
"""
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own", "published"])
def test_a_users_model_trains_on_a_users_rows(kind: str, tmp_path: Path) -> None:
    if kind == "published" and not PUBLISHED.exists():
        pytest.skip("NOT RUN: no published NeMo-Gym rows beside the checkout")
    rows = own_rows(tmp_path) if kind == "own" else published_rows()
    recipe = load_recipe(recipe_file(tmp_path, rows, tiny_qwen3(tmp_path / "model")))
    layout = RunFolder(tmp_path / "run")
    write_text(layout.resolved_recipe, recipe.model_dump_json())
    base = steps.preflight(str(layout.root))
    trained = steps.train(str(layout.root), "rl", base)
    folder, manifest = verify(trained)
    assert manifest.parent == base
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "qwen3"
    lines = layout.training(manifest.id).curves.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert all(json.loads(line)["grader_errors"] == 0 for line in lines)
