"""Every code block of README and docs does what a reader would do with it.

Python runs. Recipes load. Commands parse by the program's own parser, and targets of make exist. A block that
needs a cluster or a server parses only.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from kascade.cli import app
from kascade.recipe.document import parse_yaml
from kascade.recipe.load import load_recipe
from kascade.recipe.parts import DataSource
from kascade.recipe.sampling import Sampling

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RECIPE_KEYS = {"kascade", "preset"}
GROUP = typer.main.get_command(app)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.number}"


def blocks(*languages: str) -> list[Block]:
    """Blocks of these languages."""
    return [
        Block(page, number, found[1], found[2])
        for page in PAGES
        for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
        if found[1] in languages
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: rows and a model."""
    question = {"options": [{"A": "red"}, {"B": "blue"}], "expected_answer": "B"}
    quiz = [{"responses_create_params": {"input": f"Question {n}?"}, **question} for n in range(60)]
    sft = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "B"}]}
        for n in range(60)
    ]
    constraint = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    own = [{"responses_create_params": {"input": f"Write {n}."}, **constraint} for n in range(60)]
    for name, rows in {"quiz": quiz, "sft": sft, "my_rows": own, "rows": quiz}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_recipes_load_and_fragments_fit_their_fields(block: Block, folder: Path) -> None:
    found = parse_yaml(block.text, str(block)).plain()
    if isinstance(found, dict) and RECIPE_KEYS & found.keys():
        (folder / "recipe.yaml").write_text(block.text)
        assert load_recipe(str(folder / "recipe.yaml")).stages
        return
    checked = list(_fragments(found))
    assert checked, f"{block}: neither a recipe nor a part of one that this test knows"


def _fragments(found: Any) -> Iterator[object]:
    """The parts of a recipe in a fragment, each validated."""
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        if key == "data" and isinstance(value, list):
            yield from (DataSource.model_validate(mix.get("source", mix)) for mix in value)
        elif key == "source":
            yield DataSource.model_validate(value)
        elif key == "sampling":
            yield Sampling.model_validate(value)
        elif key == "overrides":
            yield _loaded({"preset": "quickstart", "overrides": value})
        else:
            yield _loaded(_around(key, value))


def _around(key: str, value: Any) -> dict[str, Any]:
    """The smallest recipe with this top-level field, or the quickstart with it put over."""
    if key not in {"stages", "benchmarks"} or not isinstance(value, list):
        return {"preset": "quickstart", "overrides": {key: value}}
    recipe: dict[str, Any] = {"kascade": 1, "name": "fragment", "model": "builtin://mini-nemotron-h"}
    recipe["stages"] = [{"kind": "sft", "name": "sft", "steps": 1, "data": [{"environment": "mcqa"}]}]
    recipe["benchmarks"] = [{"name": "quiz", "source": {"environment": "mcqa"}, "tasks": 40}]
    return {**recipe, key: value}


def _loaded(recipe: dict[str, Any]) -> object:
    path = Path("fragment.yaml")
    path.write_text(yaml.safe_dump(recipe))
    return load_recipe(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs_as_printed(block: Block, folder: Path) -> None:
    for name in ("before", "after"):
        lines = [{"benchmark": "m", "task": str(n), "reward": n % 2} for n in range(40)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    earlier = [one.text for one in blocks("python") if one.page == block.page and one.number < block.number]
    script = folder / "block.py"
    script.write_text("\n".join([*earlier, block.text]))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands() -> list[tuple[str, list[str]]]:
    """(place, words) of each command of ours in a block of shell."""
    found = []
    for block in blocks("", "bash", "sh", "shell"):
        joined = block.text.replace("\\\n", " ")
        for line in joined.splitlines():
            for part in re.split(r"\s(?:\||&&)\s", line.partition("#")[0].partition(" > ")[0]):
                words = _words(part)
                if words[:1] in (["kascade"], ["make"]) and "|" not in words:
                    found.append((f"{block}: {part.strip()}", words))
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text.strip())
    except ValueError:
        return []


@pytest.mark.parametrize(("place", "words"), commands(), ids=[place for place, _ in commands()])
def test_commands_parse_by_the_programs_own_parser(place: str, words: list[str]) -> None:
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        text = "".join(file.read_text() for file in (ROOT / "Makefile", ROOT / "images" / "images.mk"))
        for target in targets:
            assert re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), place
        return
    command: Any = GROUP
    context = click.Context(command, info_name="kascade")
    rest = words[1:]
    name: str | None = None
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, place
        context = click.Context(command, info_name=name, parent=context)
    command.make_context(str(name), list(rest), parent=context.parent, resilient_parsing=False)


def test_the_pages_have_blocks_of_each_kind() -> None:
    assert len(blocks("yaml")) > 8 and len(blocks("python")) > 2 and len(commands()) > 20
