"""Folders that look like a model's and are none: `check` says so, with the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_cascade import save_base
from typer.testing import CliRunner

from kascade.cli import app

RECIPE = """kascade: 1
name: one
model: {source: MODEL}
stages:
  - {kind: sft, name: sft, steps: 3, batch_size: 8, data: [{source: {environment: mcqa, count: 40}}]}
benchmarks: [{name: knowledge, source: {environment: mcqa}, tasks: 6, sampling: {max_new_tokens: 8}}]
guard: {weak_exams: warn}
"""
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
INDEX = "model.safetensors.index.json"
Change = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_base(tmp_path / "model")


def checked(model: Path) -> tuple[int, str]:
    recipe = model.with_name("recipe.yaml")
    recipe.write_text(RECIPE.replace("MODEL", str(model)), encoding="utf-8")
    found = CliRunner().invoke(app, ["check", str(recipe)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, " ".join((found.stdout + found.stderr).split())


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def field(name: str, key: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content[key] = value
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def shards(index: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return change


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


BROKEN: dict[str, tuple[Change, str]] = {
    "weights cut": (cut, "is cut"),
    "weights a pointer": (text("model.safetensors", LFS), "Git LFS"),
    "tokenizer a pointer": (text("tokenizer.json", LFS), "Git LFS"),
    "index a list": (shards([]), "no JSON object"),
    "index of numbers": (shards({"weight_map": {"a": 1}}), "weight_map"),
    "index out of the folder": (shards({"weight_map": {"a": "../x.safetensors"}}), "weight_map"),
    "shard not there": (shards({"weight_map": {"a": "x.safetensors"}}), "x.safetensors: does not exist"),
    "config a list": (text("config.json", "[]"), "config.json"),
    "tokenizer config a list": (text("tokenizer_config.json", "[]"), "tokenizer_config.json"),
    "unknown type": (field("config.json", "model_type", "qwen99"), "none that the installed transformers"),
    "other vocabulary": (field("config.json", "vocab_size", 5), "the weights have 13"),
    "other width": (field("config.json", "hidden_size", 48), "the weights have 32"),
    "fewer layers": (field("config.json", "num_hidden_layers", 1), "the weights have 2"),
    "more layers": (field("config.json", "num_hidden_layers", 3), "lacks tensors"),
    "no number of layers": (field("config.json", "num_hidden_layers", -1), "a whole number above 0"),
    "size in words": (field("config.json", "vocab_size", "many"), "a whole number above 0"),
    "token of no id": (field("tokenizer_config.json", "eos_token", "<new>"), "eos_token '<new>'"),
    "template without words": (
        text("chat_template.jinja", "{% for m in messages %}<user>{% endfor %}"),
        "does not show what the user says",
    ),
    "empty template": (text("chat_template.jinja", ""), "chat"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_an_error_before_anything_runs(name: str, model: Path) -> None:
    change, said = BROKEN[name]
    change(model)
    code, found = checked(model)
    assert (code, said in found, "to do:" in found) == (2, True, True), found


def test_a_whole_model_has_no_error(model: Path) -> None:
    assert checked(model)[0] == 0
