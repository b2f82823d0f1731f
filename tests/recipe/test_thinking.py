"""What a recipe says about thinking must go together."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import UserError
from kascade.recipe.identity import canonical_json, determinants, fingerprint, stage_key
from kascade.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("{source: m, thinking_words: [a, b]}", "{environment: mcqa}", "the template has its own way"),
        (
            "{source: m, thinking_switch: slash, chat_template: nemotron-cascade-1}",
            "{environment: mcqa}",
            "writes /think and /no_think itself",
        ),
        ("{source: m, thinking_switch: system, thinking_words: [a, a]}", "{environment: mcqa}", "the same"),
        ("m", "{environment: mcqa, thinking: true, mode: no_think}", "mode is no_think"),
    ],
)
def test_switches_that_cannot_work_are_refused(tmp_path: Path, model: str, data: str, words: str) -> None:
    file = tmp_path / "recipe.yaml"
    text = (
        f"kascade: 1\nname: x\nmodel: {model}\nstages:\n- {{kind: sft, name: a, steps: 2, data: [{data}]}}\n"
    )
    file.write_text(f"{text}benchmarks:\n- {{name: q, source: {{environment: mcqa}}}}\n")
    with pytest.raises(UserError, match=words):
        load_recipe(file)


def test_a_penalty_for_disobedience_needs_a_mode(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(SMALL)
    with pytest.raises(UserError, match="no source of this stage asks"):
        load_recipe(file, ["if_rl.grpo.obey_switch=true"])


def test_a_switch_changes_keys_and_recipes_without_one_keep_theirs(tmp_path: Path) -> None:
    plain = load_recipe(write_recipe(tmp_path))
    determined_by = canonical_json(determinants(plain, "if_rl", "recover-1"))
    assert not [name for name in ("thinking_switch", "mode", "obey_switch") if f'"{name}"' in determined_by]
    asked = SMALL.replace("{environment: mcqa}}]", "{environment: mcqa, mode: think}}]")
    switched = load_recipe(write_recipe(tmp_path), ["model.thinking_switch=system"])
    for other in (switched, load_recipe(write_recipe(tmp_path, asked))):
        assert stage_key(other, "sft", "train", "parent") != stage_key(plain, "sft", "train", "parent")
        assert fingerprint(other) != fingerprint(plain)


def test_comparisons_have_no_penalty_for_disobedience(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rewards of comparisons are relative"):
        load_recipe(write_recipe(tmp_path), ["chat_teacher.grpo.obey_switch=true"])
