"""The run form: what it may say on top of a compiled pipeline, and how it is told what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import CheckpointError, UserError
from kascade.recipe.load import load_recipe, read_recipe
from kascade.recipe.run_form import FIELDS, RunForm, pack, resolve_form, unpack
from kascade.steps.begin import begin, run_folder
from kascade.storage.run_folder import RunFolder

PACKED = pack(load_recipe("quickstart"), read_recipe("quickstart").scales)
REFERENCE = "file:///kascade/runs/a/checkpoints/sft/train-1@sha256:" + "0" * 64


def told(**fields: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve_form(PACKED, RunForm(**fields))
    return str(caught.value)


def test_an_empty_form_is_the_compiled_recipe() -> None:
    found = resolve_form(PACKED, RunForm(stages="sft=True if_rl=true"))
    assert found == load_recipe("quickstart") == unpack(PACKED)


def test_every_field_counts() -> None:
    form = RunForm(
        recipe="quickstart",
        model="/kascade/models/mine",
        budget="2.5",
        overrides='{"if_rl": {"steps": 3}, "guard": {"min_drop": 0.07}}',
    )
    found = resolve_form(PACKED, form)
    stages = {stage.name: stage for stage in found.stages}
    assert stages["if_rl"].steps == 3 and found.guard.min_drop == 0.07
    assert found.model.source == "/kascade/models/mine"
    assert found.limits.cpu_hours == 2.5
    assert resolve_form(PACKED, form) == found


def test_a_scale_of_the_compiled_recipe() -> None:
    smoke = resolve_form(PACKED, RunForm(scale="smoke"))
    expected = load_recipe("quickstart", scale="smoke")
    assert [stage.steps for stage in smoke.stages] == [stage.steps for stage in expected.stages]
    assert smoke.benchmarks == expected.benchmarks and smoke != unpack(PACKED)


def test_a_file_by_path_and_by_uri(tmp_path: Path) -> None:
    path = tmp_path / "my recipe.yaml"
    path.write_text("preset: quickstart\noverrides: {if_rl: {steps: 5}}\n", encoding="utf-8")
    by_path, by_uri = (resolve_form(PACKED, RunForm(recipe=r)) for r in (str(path), path.as_uri()))
    assert by_path == by_uri and by_path.stages[1].steps == 5


def test_rows_by_folder_and_by_environment(tmp_path: Path) -> None:
    (tmp_path / "mcqa.jsonl").write_text("{}\n", encoding="utf-8")
    folder = resolve_form(PACKED, RunForm(data=str(tmp_path)))
    named = resolve_form(PACKED, RunForm(data=json.dumps({"mcqa": str(tmp_path / "mcqa.jsonl")})))
    typed = resolve_form(PACKED, RunForm(data=f"mcqa = {tmp_path / 'mcqa.jsonl'}"))
    assert folder == named == typed
    assert "mcqa.jsonl" in folder.model_dump_json()


def test_changes_are_typed_without_json() -> None:
    as_json = '{"if_rl": {"steps": 3}, "guard": {"min_drop": 0.07}}'
    for text in ("if_rl.steps=3; guard.min_drop=0.07", "if_rl.steps=3\nguard.min_drop=0.07\n"):
        typed, written = (RunForm(overrides=one, stages="code_rl=false") for one in (text, as_json))
        assert resolve_form(PACKED, typed) == resolve_form(PACKED, written)
    assert "'faster please' is no change" in told(overrides="faster please")
    for text in ("seed=7; threads=3", '{"seed": 7, "threads": 3}'):
        found = resolve_form(PACKED, RunForm(overrides=text))
        assert (found.seed, found.threads) == (7, 3)
    assert "run form overrides seed=-1: -1 will not do" in told(overrides="seed=-1")


def test_a_checkpoint_to_start_from() -> None:
    found = resolve_form(PACKED, RunForm(start_from=REFERENCE))
    assert found.model.source == "/kascade/runs/a/checkpoints/sft/train-1"


def test_a_stage_switched_off_is_no_stage_of_the_run() -> None:
    recipe = resolve_form(PACKED, RunForm(stages="code_rl=false sft=true"))
    names = [stage.name for stage in recipe.stages]
    assert "code_rl" not in names and len(names) == len(unpack(PACKED).stages) - 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"recipe": "quickstrat"}, "did you mean 'quickstart'?"),
        ({"recipe": "https://host/recipe.yaml"}, "give a path, file:///FOLDER or s3://BUCKET/KEY"),
        ({"recipe": "/no/such.yaml"}, "no such file"),
        ({"scale": "smokey"}, "run form scale: no scale 'smokey' here"),
        ({"budget": "a lot"}, "run form budget: 'a lot' will not do"),
        ({"budget": "-1"}, "a number > 0"),
        ({"budget": "nan"}, "a number > 0"),
        ({"overrides": "{steps: 20}"}, "is not JSON"),
        ({"overrides": "[1]"}, "'[1]' is no change"),
        ({"overrides": '{"if_lr": {"steps": 1}}'}, "did you mean 'if_rl'?"),
        ({"overrides": '{"if_rl": {"steps": "many"}}'}, "a whole number"),
        ({"data": "my-rows"}, "give the whole path, such as /kascade/my-rows"),
        ({"data": '{"nothing": "/x.jsonl"}'}, "no stage or benchmark of this recipe uses"),
        ({"start_from": "/some/folder"}, "URI@sha256:DIGEST"),
        ({"start_from": REFERENCE, "model": "/m"}, "both a model and a checkpoint"),
        ({"stages": "sft=perhaps"}, "'perhaps' will not do"),
        ({"stages": "stf=true"}, "did you mean 'sft'?"),
        ({"overrides": "if_rl.steps=many"}, "run form overrides if_rl.steps=many: "),
        ({"overrides": '{"if_rl": {"steps": "many"}}'}, "run form overrides if_rl.steps: "),
        ({"overrides": '{"if_rl": {"steps": 1, "steps": 2}}'}, "steps is given twice"),
        ({"overrides": '{"a":' * 1900}, "is nested too deeply"),
        ({"data": "math=/a; math=/b"}, "math is given twice"),
        ({"data": "=/a"}, "'=/a' lacks a name or a value"),
        ({"budget": "cpu_hours=1; cpu_hours=2"}, "cpu_hours is given twice"),
        ({"budget": "money="}, "'money=' lacks a name or a value"),
        ({"stages": " ".join(f"{stage.name}=false" for stage in unpack(PACKED).stages)}, "leave one on"),
    ],
)
def test_what_will_not_do_is_told_in_words(fields: dict[str, str], words: str) -> None:
    assert words in told(**fields)


def test_all_of_it_at_once() -> None:
    everything = told(budget="x", overrides="{", data="here", start_from="there", scale="huge")
    for field in ("budget", "overrides", "data", "start_from", "scale"):
        assert f"run form {field}" in everything


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": "nemotron-cascade-1-14b"},
        {"overrides": '{"guard": {"recovery": {"rounds": 0}}}'},
        {"overrides": '{"cluster": {"stages": {"sft": {"accelerators": 8}}}}'},
        {"overrides": '{"code_rl": {"parent": "sft"}}'},
    ],
)
def test_another_graph_is_refused_with_the_way_to_it(fields: dict[str, str]) -> None:
    words = told(**fields)
    assert "kascade compile" in words
    assert "compiled" in words


def test_a_stage_taken_out_by_an_override_has_a_switch() -> None:
    assert "set the form's switch of code_rl to false" in told(overrides='{"code_rl": null}')


def test_a_teacher_switched_off_is_missed() -> None:
    packed = pack(load_recipe("nemotron-cascade-2"))
    with pytest.raises(UserError, match="'rlhf_teacher' is not an earlier stage"):
        resolve_form(packed, RunForm(stages="rlhf_teacher=false"))


def test_a_stage_that_joins_the_main_line_cannot_be_switched_off() -> None:
    """The stage after it would go on from the side branch, which was never held to everything."""
    recipe = load_recipe("nemotron-cascade-2")
    stages = tuple(
        one.model_copy(update={"parent": "rlhf_teacher"}) if one.name == "rlhf" else one
        for one in recipe.stages
    )
    packed = pack(recipe.model_copy(update={"stages": stages}))
    with pytest.raises(UserError, match="run form rlhf: it starts from 'rlhf_teacher'"):
        resolve_form(packed, RunForm(stages="rlhf=false"))
    assert resolve_form(packed, RunForm(stages="if_rl=true")).stages == stages


def test_the_forms_fields_are_the_pipelines() -> None:
    fields = [name for name in RunForm.__dataclass_fields__ if name != "stages"]
    assert set(fields) | {"run"} == set(FIELDS)
    assert 5 <= len(FIELDS) <= 9


def test_a_run_has_a_folder_of_its_own_or_the_one_it_is_given() -> None:
    assert run_folder("/kascade/runs/a/{id}", "7f") == "/kascade/runs/a/7f"
    assert run_folder("/kascade/runs/a/old", "7f") == "/kascade/runs/a/old"


def test_a_folder_whose_name_the_cluster_would_change_is_refused() -> None:
    with pytest.raises(UserError, match="which Kubernetes and Argo may fill in"):
        begin("/kascade/runs/$HOME", PACKED, ["", "", "", "", "", "", "", ""], lambda recipe: [])


def test_beginning_writes_the_recipe_and_checks_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kascade.steps import steps

    monkeypatch.setattr(steps, "preflight", lambda run, job_faults: f"base of {Path(run).name}")
    form: list[Any] = ["", "", "", "", "", '{"if_rl": {"steps": 3}}', "", ""]
    base, run = begin(str(tmp_path / "r"), PACKED, form, lambda recipe: [])
    assert (base, run) == ("base of r", str(tmp_path / "r"))
    written = json.loads(RunFolder(tmp_path / "r").resolved_recipe.read_text())
    assert written["stages"][1]["steps"] == 3
    form[6] = REFERENCE
    with pytest.raises(UserError, match="start_from") as caught:
        begin(str(tmp_path / "s"), PACKED, form, lambda recipe: [])
    assert isinstance(caught.value.__cause__, CheckpointError)
