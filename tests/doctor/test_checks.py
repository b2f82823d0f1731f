"""What is wrong before a run is found before the run, and what was not looked at is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from kascade.cli import app
from kascade.doctor.checks import CHECKS, HERE, LIGHT, examine
from kascade.doctor.subject import Subject
from kascade.errors import Fault, UserError
from kascade.models.load import BUILTIN_ROOT, load_model
from kascade.recipe.load import LoadedRecipe, read_recipe

RECIPE = """kascade: 1
name: own
model: {{source: {model}}}
guard: {{weak_exams: warn}}
stages:
  - kind: sft
    name: sft
    steps: 2
    max_tokens: 512
    data: [{{source: {{environment: demonstrations, path: {sft}}}}}]
  - kind: multi_domain_rl
    name: rl
    steps: 2
    sampling: {{max_new_tokens: 16}}
    data: [{{source: {{environment: mcqa, path: {rl}}}}}]
benchmarks:
  - name: quiz
    source: {{environment: mcqa, path: {rl}}}
    tasks: 40
    sampling: {{max_new_tokens: 16}}
"""


def question(number: int, **more: Any) -> dict[str, Any]:
    asked = (
        f"Which of the two letters below comes first in the Latin alphabet, in round {number}?\nA: a\nB: b"
    )
    options = {"options": [{"A": "a"}, {"B": "b"}], "expected_answer": "A"}
    return {"responses_create_params": {"input": asked}, **options, **more}


def turns(number: int) -> dict[str, Any]:
    said = [("user", f"Say {number}."), ("assistant", f"{number}.")]
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Own:
    """A recipe of a user's own with its files, to be broken in one place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = Path(shutil.copytree(BUILTIN_ROOT / "mini-nemotron-h", folder / "model"))
        self.sft, self.rl = folder / "sft.jsonl", folder / "rl.jsonl"
        write(self.sft, [turns(number) for number in range(40)])
        write(self.rl, [question(number) for number in range(60)])
        self.text = RECIPE.format(model=self.model, sft=self.sft, rl=self.rl)

    def loaded(self) -> LoadedRecipe:
        path = self.folder / "own.yaml"
        path.write_text(self.text, encoding="utf-8")
        return read_recipe(path)

    def subject(self, **how: Any) -> Subject:
        loaded = self.loaded()
        return Subject(loaded.recipe, loaded.place, self.folder / "run", **how)

    def errors(self, **how: Any) -> list[Fault]:
        return examine(self.subject(**how)).errors


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


def test_a_sound_recipe_has_no_errors_and_the_rest_is_named_as_not_checked(own: Own) -> None:
    found = examine(own.subject())
    assert found.errors == []
    assert sorted([*found.checked, *found.not_checked]) == sorted(check.name for check in CHECKS)
    assert {check.name for check in CHECKS if check.need not in LIGHT} <= set(found.not_checked)


def test_every_check_that_this_machine_can_do_passes_on_a_sound_recipe(own: Own) -> None:
    found = examine(own.subject(generated=True, fetch=True), HERE)
    assert found.errors == []
    away = {"scores of the base model", "jobs of several nodes", "memory on the devices"}
    assert set(found.not_checked) == away


def cut(own: Own) -> None:
    path = own.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pointer(own: Own) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5143928\n"
    (own.model / "model.safetensors").write_text(text)


def tensor_gone(own: Own) -> None:
    path = own.model / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if ".layers.3." in name))
    save_file(tensors, path, {"format": "pt"})


def broken_json(own: Own) -> None:
    path = own.model / "tokenizer_config.json"
    path.write_text(path.read_text()[:-10])


def no_template(own: Own) -> None:
    (own.model / "chat_template.jinja").unlink()


def template_without_system(own: Own) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    (own.model / "chat_template.jinja").write_text(template)
    said = [{"role": "system", "content": "Be brief."}, *turns(1)["messages"]]
    write(own.sft, [{"messages": said}, *(turns(number) for number in range(40))])


def too_many_tokens(own: Own) -> None:
    path = own.model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 5000, "content": "<|new|>"})
    path.write_text(json.dumps(tokenizer))


def answers_too_long(own: Own) -> None:
    own.text = own.text.replace("max_new_tokens: 16", "max_new_tokens: 4090", 1)


def prompt_too_long(own: Own) -> None:
    long = question(0)
    long["responses_create_params"]["input"] += " and so on" * 3000
    write(own.rl, [long, *(question(number) for number in range(60))])


def empty_split(own: Own) -> None:
    write(own.rl, [question(0)])


def nothing_to_imitate(own: Own) -> None:
    write(own.sft, [{**question(number), "agent_ref": {"name": "mcqa"}} for number in range(40)])
    own.text = own.text.replace("demonstrations", "mcqa")


def fp8_on_a_cpu(own: Own) -> None:
    own.text = own.text.replace("{source: ", "{precision: fp8, source: ", 1)


BROKEN = [
    (cut, "model.safetensors: is cut", "copy or download"),
    (pointer, "is a Git LFS pointer", "git lfs pull"),
    (tensor_gone, "lacks tensors: backbone.layers.3.", "save_pretrained"),
    (broken_json, "tokenizer_config.json: is not JSON", "copy or download"),
    (no_template, "has no chat template", "model.chat_template: nemotron-cascade-2"),
    (
        template_without_system,
        "roles system, user (stage sft): System role not supported",
        "rewrite the rows",
    ),
    (too_many_tokens, "tokens up to id 5,000, the model has embeddings for 1,024", "resize_token_embeddings"),
    (answers_too_long, "answers of up to 4,090 tokens after a prompt of", "max_new_tokens"),
    (prompt_too_long, "do not fit a context of 4,096", "shorter rows"),
    (empty_split, "has no rows that fall into the test split", "hold_out: false"),
    (nothing_to_imitate, "has no reference answers to imitate", "an RL stage"),
    (fp8_on_a_cpu, "own.yaml:3 model.precision: fp8 needs an NVIDIA GPU", "bf16"),
]


@pytest.mark.parametrize(("breaks", "what", "remedy"), BROKEN, ids=[one[0].__name__ for one in BROKEN])
def test_what_would_fail_later_is_found_at_once(
    own: Own, breaks: Callable[[Own], None], what: str, remedy: str
) -> None:
    breaks(own)
    told = "\n".join(map(str, own.errors()))
    assert what in told
    assert remedy in told


def test_an_error_of_the_model_is_told_once(own: Own) -> None:
    pointer(own)
    assert len(own.errors()) == 1


def test_a_folder_that_only_seems_writable_is_refused(own: Own) -> None:
    loaded = own.loaded()
    found = examine(Subject(loaded.recipe, loaded.place, Path("/proc/kascade/run")))
    assert ["cannot be written" in fault.what for fault in found.errors] == [True]


def test_a_hub_id_is_named_as_not_checked(own: Own) -> None:
    own.text = own.text.replace(str(own.model), "someone/model")
    found = examine(own.subject())
    assert found.errors == []
    assert found.not_checked["weights"] == "someone/model is a hub id, which the run fetches"
    assert "model files" not in found.checked


def test_faulty_rows_that_a_stage_and_a_benchmark_share_are_told_once(own: Own) -> None:
    write(own.rl, [question(number, expected_answer="C") for number in range(8)])
    errors = own.errors()
    assert len(errors) == 6  # five, and how many more there are
    assert errors[-1].what == "has 3 more errors"


@pytest.mark.parametrize("source", ["environment: mcqa, path: {rl}", "environment: lm_eval, path: null"])
def test_a_wrong_option_is_told_once(own: Own, source: str) -> None:
    """By the check of options alone: nothing else looks at what such a source would hold."""
    right = f"{{environment: mcqa, path: {own.rl}}}"
    wrong = "{" + source.format(rl=own.rl) + ", options: {sped: 1}}"
    own.text = own.text.replace(f"source: {right}\n    tasks", f"source: {wrong}\n    tasks")
    for errors in (own.errors(), examine(own.subject(generated=True, fetch=True), HERE).errors):
        (error,) = errors
        assert error.where.endswith(("source", "path")) and "sped" in error.what


def test_a_grader_that_misjudges_gold_answers_of_rows_is_found(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kascade.environments.knowledge import MultipleChoice
    from kascade.task import Grade

    monkeypatch.setattr(MultipleChoice, "grade", lambda self, task, answers: [Grade(0.0) for _ in answers])
    found = examine(own.subject(), HERE)
    wrong, more = "the gold answer grades 0, an empty one 0", "6 more of 8 tasks tried are graded wrongly"
    assert [fault.what for fault in found.errors] == [wrong, wrong, more] * 2, (
        "of the benchmark and the stage"
    )


def test_tasks_that_training_shows_are_a_warning_by_the_one_rule(own: Own) -> None:
    rows = [question(number) for number in range(60)]
    write(own.rl, rows)
    asked = [row["responses_create_params"]["input"].replace("\n", "  ").upper() for row in rows]
    said = [[{"role": "user", "content": text}, {"role": "assistant", "content": "A"}] for text in asked]
    write(own.sft, [*({"messages": one} for one in said), *(turns(number) for number in range(40))])
    (warning,) = [one for one in examine(own.subject()).warnings if one.where == "benchmark quiz"]
    assert "stages train on some of its" in warning.what
    assert "sft " in warning.what


def test_small_benchmarks_are_refused_unless_the_recipe_lets_them_pass(own: Own) -> None:
    fewer, warning = examine(own.subject()).warnings
    assert "rows are split by hash: 80 / 10 / 10 %" in fewer.what
    assert "benchmarks.0.tasks (quiz)" in warning.where
    assert "tasks show only falls from" in warning.what
    own.text = own.text.replace("weak_exams: warn", "weak_exams: refuse")
    (error,) = own.errors()
    assert (error.where, error.what) == (warning.where, warning.what)
    assert "weak_exams: warn" in (error.remedy or "")


def test_every_benchmark_states_the_falls_that_it_can_show_whatever_follows(own: Own) -> None:
    """By the rows that there are: a tenth of sixty. `check` states them for people and programs, and
    preflight keeps them."""
    seen = examine(own.subject()).falls["quiz"]
    assert seen.tasks < 20
    own.loaded()
    for says in ("warn", "refuse"):
        own.text = own.text.replace("weak_exams: warn", f"weak_exams: {says}")
        own.loaded()
        told = CliRunner().invoke(app, ["check", str(own.folder / "own.yaml")])
        assert told.exit_code == (0 if says == "warn" else 2)
        (line,) = [line for line in told.stdout.splitlines() if line.startswith("quiz")]
        half, most = (f"{100 * fall:.1f}" if isfinite(fall) else "none" for fall in (seen.half, seen.most))
        assert line.split()[1:6] == [str(seen.tasks), "x", "32", half, most]
    own.text = own.text.replace("weak_exams: refuse", "weak_exams: warn")
    own.loaded()
    told = CliRunner().invoke(app, ["check", str(own.folder / "own.yaml"), "--json"])
    assert json.loads(told.stdout)["visible_falls"] == {"quiz": seen.as_json()}


def test_weights_that_lack_a_tensor_are_never_filled_with_random_numbers(own: Own) -> None:
    tensor_gone(own)
    with pytest.raises(UserError, match=r"lacks weights that the model has: .*layers\.3\."):
        load_model(own.model, device="cpu")
