"""Four hundred mutated recipes, and paths that name nothing; those made by hand are in tests/faulty."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kascade.cli import app
from kascade.errors import UserError
from kascade.recipe.load import preset_names, read_recipe

QUICKSTART = "preset: quickstart\nseed: 3\noverrides:\n  if_rl: {steps: 2}\n  benchmarks: {math: null}\n"


@pytest.mark.parametrize("field", ["model", "data"])
@pytest.mark.parametrize("path", ["./" + "x" * 5000, "x" * 5000, '"./a\\0b"', "./loop", "~nobody-here/x"])
def test_paths_that_name_nothing_are_errors_of_their_field(field: str, path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    file = tmp_path / "r.yaml"
    file.write_text(f"preset: quickstart\n{field}: {path}\n")
    found = CliRunner().invoke(app, ["check", str(file)])
    assert found.exit_code == 2, found.output[-300:]
    assert "Traceback" not in found.output


def mutated(text: str, rng: random.Random) -> str:
    """A recipe with one to four small faults."""
    pieces = [*"{}[]:'\"\t\0#|>?%@\n", "é", "\ud800", "- ", "&a", "*a", "!!", "null", "1e9", "-1", "x: "]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        kind = rng.random()
        if kind < 0.5:
            text = text[:at] + rng.choice(pieces) + text[at:]
        elif kind < 0.8:
            text = text[:at] + text[at + rng.randint(1, 9) :]
        else:
            lines = text.split("\n")
            rng.shuffle(lines)
            text = "\n".join(lines)
    return text


@pytest.mark.slow
def test_four_hundred_mutated_recipes_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(14)
    texts = [QUICKSTART, Path(__file__).parents[2].joinpath("recipes", "quickstart.yaml").read_text()]
    assert "quickstart" in preset_names()
    file, slowest = tmp_path / "r.yaml", 0.0
    for number in range(400):
        file.write_text(mutated(texts[number % 40 == 0], rng), errors="surrogatepass")
        start = time.process_time()
        try:
            read_recipe(str(file), None, None)
        except UserError as error:
            assert all(fault.where and fault.what for fault in error.faults)
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 10
