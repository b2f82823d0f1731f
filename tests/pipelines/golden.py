"""The compiled presets as they were last looked at; `python tests/pipelines/golden.py` writes them anew.

What only repeats the recipe is masked: its packed text, which changes with every default.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from kascade.recipe.load import load_recipe
from pipelines.compile import compile_recipe

PACKED = "eN"  # how zlib's highest level begins in base64, and nothing else in a pipeline does
PRESETS = ("quickstart", "nemotron-cascade-2")


def golden_path(preset: str) -> Path:
    return Path(__file__).parent / "golden" / f"{preset}.yaml"


def golden(preset: str, folder: Path) -> str:
    text = compile_recipe(load_recipe(preset), folder / "pipeline.yaml").read_text(encoding="utf-8")
    documents = [_masked(document) for document in yaml.load_all(text, Loader=yaml.CSafeLoader)]
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, width=110, allow_unicode=True)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, str):
        return "RECIPE" if value.startswith(PACKED) else value
    return value


if __name__ == "__main__":
    for name in PRESETS:
        with tempfile.TemporaryDirectory() as scratch:
            golden_path(name).parent.mkdir(exist_ok=True)
            golden_path(name).write_text(golden(name, Path(scratch)), encoding="utf-8")
