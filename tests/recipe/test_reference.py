"""The reference of recipes holds every field, says what each is, and is what the code says."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from kascade.cli import app
from kascade.recipe.reference import reference_text, undescribed
from kascade.recipe.schema import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "recipe-reference.md"


def test_every_field_says_what_it_is() -> None:
    assert undescribed() == []


def test_the_page_is_what_the_command_prints() -> None:
    text = CliRunner().invoke(app, ["schema", "--reference"]).stdout
    assert text == reference_text()
    remedy = "make it anew: kascade schema --reference > docs/recipe-reference.md"
    assert PAGE.read_text(encoding="utf-8") == text, remedy


def test_every_part_that_a_field_links_to_has_its_section() -> None:
    page = reference_text()
    links = {link.partition(")")[0] for link in page.split("](#")[1:]}
    heads = {line[3:].lower() for line in page.splitlines() if line.startswith("## ")}
    assert links <= heads
    assert len(page.splitlines()) > 150
    assert all(f"| `{field}` |" in page for field in Recipe.model_fields)
