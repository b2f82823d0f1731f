"""Loading: three levels, and every fault at once, at its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import Fault, UserError
from kascade.recipe.checks import RESERVED_NAMES
from kascade.recipe.layers import PARTS
from kascade.recipe.load import PLAIN, load_recipe, preset_names, read_recipe
from kascade.recipe.schema import Recipe


def faults_of(source: Path | str, *overrides: str, **dials: object) -> tuple[Fault, ...]:
    with pytest.raises(UserError) as caught:
        read_recipe(source, list(overrides), dials)
    return caught.value.faults


def test_dials_on_a_preset(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, "preset: quickstart\nname: mine\nmodel: Org/Model\nseed: 7\nbudget: 2.5\nthreads: 1\n"
    )
    recipe = load_recipe(path)
    assert (recipe.name, recipe.model.source, recipe.seed) == ("mine", "Org/Model", 7)
    assert (recipe.limits.cpu_hours, recipe.threads) == (2.5, 1)
    assert recipe.stages == load_recipe("quickstart").stages


def test_overrides_reach_single_fields_and_keep_their_neighbours(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        "preset: quickstart\n"
        "overrides:\n"
        "  if_rl: {steps: 3, optimizer: {learning_rate: 1e-5}}\n"
        "  swe_rl: null\n"
        "  guard: {min_drop: 0.1}\n"
        "  benchmarks: {math: {tasks: 7}, repair: null}\n",
    )
    base, recipe = load_recipe("quickstart"), load_recipe(path)
    changed = next(stage for stage in recipe.stages if stage.name == "if_rl")
    before = next(stage for stage in base.stages if stage.name == "if_rl")
    assert (changed.steps, changed.optimizer.learning_rate) == (3, 1e-5)
    assert changed.data == before.data
    assert [stage.name for stage in recipe.stages] == [s.name for s in base.stages if s.name != "swe_rl"]
    assert recipe.guard.min_drop == 0.1
    assert recipe.guard.recovery == base.guard.recovery
    assert recipe.benchmarks[0].tasks == 7
    assert "repair" not in {benchmark.name for benchmark in recipe.benchmarks}


def test_numbers_of_the_recipe_itself_can_be_overridden(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "preset: quickstart\noverrides: {exam_processes: 5, save_on_signal: 3.5}\n")
    recipe = load_recipe(path, ["exam_processes=1"])
    assert (recipe.exam_processes, recipe.save_on_signal) == (1, 3.5)


def test_no_stage_takes_the_name_of_what_overrides_change() -> None:
    assert {*PARTS, *PLAIN, "benchmarks"} <= RESERVED_NAMES


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, "preset: quickstart\nseed: 1\noverrides: {sft: {steps: 33, batch_size: 11}}\n"
    )
    recipe = load_recipe(path, ["sft.steps=44"], seed=2)
    assert recipe.seed == 2
    assert (recipe.stages[0].steps, recipe.stages[0].model_dump()["batch_size"]) == (44, 11)
    assert load_recipe(path, {"sft": {"steps": 44}}, seed=2) == recipe


def test_scale_is_what_the_recipe_declares(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    assert load_recipe(path).stages[0].steps == 10
    assert load_recipe(path, scale="tiny").stages[0].steps == 1
    (fault,) = faults_of(path, scale="tny")
    assert fault.allowed == "tiny"
    assert fault.remedy == "did you mean 'tiny'?"


def test_data_replaces_the_tasks_of_an_environment_seen_from_the_file(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "preset: quickstart\ndata: {mcqa: rows/mcqa.jsonl}\n")
    recipe = load_recipe(path)
    sources = [mix.source for stage in recipe.stages for mix in stage.data]
    sources += [benchmark.source for benchmark in recipe.benchmarks]
    for source in sources:
        expected = str(tmp_path / "rows/mcqa.jsonl") if source.environment == "mcqa" else None
        assert source.path == expected


def test_data_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mcqa.jsonl").write_text("{}\n")
    recipe = load_recipe(write_recipe(tmp_path), data=str(tmp_path))
    assert recipe.benchmarks[0].source.path == str(tmp_path / "mcqa.jsonl")
    assert recipe.benchmarks[1].source.path is None


def test_every_fault_comes_at_once_with_line_allowed_values_and_nearest_name(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        "preset: quickstart\n"
        "seeds: 3\n"
        "data: {mcq: rows.jsonl}\n"
        "overrides:\n"
        "  if_rl: {stpes: 3}\n"
        "  ifrl: {steps: 2}\n"
        "  mopd: {teachers: {maths: sft, chat: rlhf}}\n"
        "  guard: {unrecovered: contine}\n"
        "  sft: {steps: many}\n",
    )
    found = {fault.where: fault for fault in faults_of(path)}
    expected = {
        f"{path}:2 seeds": "did you mean 'seed'?",
        f"{path}:3 data.mcq": "did you mean 'mcqa'?",
        f"{path}:5 overrides.if_rl.stpes": "did you mean 'steps'?",
        f"{path}:6 overrides.ifrl": "did you mean 'if_rl'?",
        f"{path}:7 overrides.mopd.teachers.maths": "did you mean 'math'?",
        f"{path}:7 overrides.mopd.teachers.chat": None,
        f"{path}:8 overrides.guard.unrecovered": "did you mean 'continue'?",
        f"{path}:9 overrides.sft.steps": None,
    }
    assert {where: fault.remedy for where, fault in found.items()} == expected
    assert found[f"{path}:8 overrides.guard.unrecovered"].allowed == "continue, rollback, stop"
    assert found[f"{path}:9 overrides.sft.steps"].allowed == "a whole number > 0"
    assert found[f"{path}:7 overrides.mopd.teachers.chat"].allowed == "sft, if_rl, multi_domain_rl, best"


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("    name: mopd\n", "    name: sft\n", ":20 stages.3.name", "used twice"),
        ("parent: sft", "parent: if_rl", ":11 stages.1.parent", "not an earlier stage"),
        (
            "teachers: {chat: chat_teacher,",
            "teachers: {chat: chat_teacher, math: mopd,",
            ":22 stages.3.teachers.math",
            "not an earlier",
        ),
        ("teachers: {chat: chat_teacher,", "teachers: {", ":12 stages.1.side_branch", "no later stage"),
        ("{environment: instruction_following}", "{environment: ifeval}", "environment", "not a registered"),
        (
            "    name: if_rl\n",
            "    name: if_rl\n    goals: [chatt]\n",
            ":17 stages.2.goals.0",
            "not a benchmark",
        ),
        ("    name: mopd\n", "    name: best\n", ":20 stages.3.name", "cannot be called"),
        ("  - kind: sft", "  - kind: stf", ":5 stages.0.kind", "not a kind of stage"),
        ("  - kind: sft\n    name: sft", "  - name: sft", ":5 stages.0.kind", "`kind` is missing"),
        ("    steps: 5\n", "", ":9 stages.1.steps", "`steps` is missing"),
        ("    steps: 5\n", "    steps: 5\n    steps: 6\n", ":14 stages.1", "appears twice"),
        ("    steps: 5\n", "    steps: true\n", ":13 stages.1.steps", "valid integer"),
        ("data: [{source: {environment: mcqa}}]", "data: []", ":8 stages.0.data", "at least 1 item"),
        (
            "    steps: 5\n",
            "    steps: 5\n    rollouts_per_prompt: 1\n",
            "rollouts_per_prompt",
            "greater than",
        ),
        (
            "    steps: 5\n",
            "    steps: 5\n    optimizer: {warmup_steps: 6}\n",
            ":14 stages.1.optimizer.warmup_steps",
            "longer than",
        ),
        (
            "    steps: 5\n",
            "    steps: 5\n    optimizer: {schedule: cosine}\n",
            "final_learning_rate",
            "cosine schedule",
        ),
        (
            "    teachers:",
            "    importance: {low: 3.0}\n    teachers:",
            ":22 stages.3.importance.low",
            "does not hold the ratio 1",
        ),
        (
            "    steps: 5\n",
            "    steps: 5\n    prompts_per_step: 2\n",
            "grpo.min_usable_groups",
            "can never come",
        ),
        (
            "{environment: mcqa}, tasks: 20",
            "{environment: mcqa, levels: [0.9, 0.1]}",
            "levels",
            "not a range",
        ),
        ("tasks: 20}\n  -", "tasks: .inf}\n  -", ":25 benchmarks.0.tasks", "valid integer"),
    ],
)
def test_each_mistake_is_one_fault_at_its_place(
    tmp_path: Path, old: str, new: str, where: str, what: str
) -> None:
    assert old in SMALL
    (fault,) = faults_of(write_recipe(tmp_path, SMALL.replace(old, new, 1)))
    assert where in fault.where
    assert what in fault.what


def test_field_faults_do_not_hide_faults_of_reference(tmp_path: Path) -> None:
    text = SMALL.replace("steps: 5", "steps: five").replace("parent: sft", "parent: nowhere")
    assert len(faults_of(write_recipe(tmp_path, text))) == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no fields"),
        (b"- 1\n- 2\n", "holds no fields"),
        (b"preset: [quickstart\n", "not readable as YAML"),
        (b"preset: quickstart\n\tseed: 1\n", "not readable as YAML"),
        (b"preset: \xff\xfe\n", "not UTF-8"),
        (b"preset: quickstart\n---\npreset: quickstart\n", "not readable as YAML"),
        (b"preset: &a [*a]\n", "alias that contains itself"),
        (b"? [1, 2]\n: 3\n", "a key must be plain text"),
        (b"preset: !!python/name:os.system x\n", "does not belong in a recipe"),
        (b'name: "\\ud800"\n', "unreadable value"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"preset: quikstart\n", "there is no preset"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    assert what in faults_of(path)[0].what


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "values" in faults_of(write_recipe(tmp_path, "l0: &l0 [1]\n" + "\n".join(levels)))[0].what


def test_a_missing_file_and_a_misspelt_preset(tmp_path: Path) -> None:
    (missing,) = faults_of(tmp_path / "none.yaml")
    assert missing.what == "no such file"
    (misspelt,) = faults_of("quickstrat")
    assert misspelt.remedy == "did you mean 'quickstart'?"
    assert "folder" in faults_of(tmp_path)[0].what


@pytest.mark.parametrize("setting", ["x", "=3", "a..b=3", "if_rl.steps=[1", "if_rl.stepz=3", "nope.steps=3"])
def test_a_bad_setting_names_itself(setting: str) -> None:
    assert f"--set {setting}" in faults_of("quickstart", setting)[0].where


def test_numbers_are_read_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    text = SMALL.replace("    steps: 10\n", "    steps: 10\n    optimizer: {learning_rate: 3e-6}\n", 1)
    assert load_recipe(write_recipe(tmp_path, text)).stages[0].optimizer.learning_rate == 3e-6


@pytest.mark.parametrize("name", preset_names())
def test_a_completed_recipe_loads_as_itself(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = write_recipe(tmp_path, recipe.model_dump_json(), "resolved.json")
    assert load_recipe(path) == recipe


texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
keys = st.sampled_from(
    [
        "preset",
        "name",
        "stages",
        "kind",
        "steps",
        "overrides",
        "data",
        "model",
        "scale",
        "benchmarks",
        "sft",
        "guard",
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


def recipe_or_faults(path: Path) -> None:
    try:
        assert isinstance(load_recipe(path), Recipe)
    except UserError as error:
        assert error.faults
        assert json.dumps(error.as_json())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80) | st.binary(max_size=60))
def test_any_text_gives_a_recipe_or_faults(folder: Path, text: str | bytes) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    recipe_or_faults(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(keys | texts, values, max_size=4), base=st.sampled_from(["preset", "full"]))
def test_any_fields_give_a_recipe_or_faults(folder: Path, change: dict[str, object], base: str) -> None:
    start = {"preset": "quickstart"} if base == "preset" else yaml.safe_load(SMALL)
    path = folder / "fields.yaml"
    path.write_text(yaml.safe_dump({**start, **change}, allow_unicode=False), encoding="utf-8")
    recipe_or_faults(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stage=st.integers(0, 3),
    field=st.sampled_from(
        ["kind", "name", "parent", "steps", "data", "teachers", "optimizer", "goals", "sampling", "limits"]
    ),
    value=values,
)
def test_any_value_in_a_stage_gives_a_recipe_or_faults(
    folder: Path, stage: int, field: str, value: object
) -> None:
    recipe = yaml.safe_load(SMALL)
    recipe["stages"][stage][field] = value
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    recipe_or_faults(path)


def test_part_of_grpo_leaves_the_kl_of_rlhf(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, "preset: quickstart\nname: mine\noverrides: {rlhf: {grpo: {min_usable_groups: 1}}}\n"
    )
    recipe = load_recipe(path)
    rlhf = next(stage for stage in recipe.stages if stage.kind == "rlhf")
    assert (rlhf.grpo.min_usable_groups, rlhf.grpo.kl_coefficient) == (1, 0.03)


@pytest.mark.parametrize(
    "setting", ["sft.steps=100000000000000000", "threads=1000000000", "exam_processes=10000000"]
)
def test_numbers_that_no_computer_counts_to_are_refused(setting: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    key, _, value = setting.partition("=")
    if "." in key:
        faults = faults_of(path, setting)
    else:
        path.write_text(f"{path.read_text()}\n{key}: {value}\n")
        faults = faults_of(path)
    assert len(faults) == 1
    assert key in faults[0].where
    assert faults[0].allowed
