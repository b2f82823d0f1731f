"""Published benchmarks by name: their protocol fills in what the recipe leaves open; their rows load."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from kascade.environments import get_environment, known_environments
from kascade.environments.rows.loading import load_tasks
from kascade.errors import Fault, UserError
from kascade.recipe.benchmark_presets import benchmark_presets, with_presets
from kascade.recipe.document import from_value
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Benchmark
from kascade.rollout.pools import source_tasks


def benchmark(preset: str, path: Path | str = "rows.jsonl", **fields: Any) -> Benchmark:
    source = {"path": str(path), **fields.pop("source", {})}
    written = {"benchmarks": [{"name": "exam", "preset": preset, "source": source, **fields}]}
    faults: list[Fault] = []
    (filled,) = with_presets(from_value(written, "test"), faults).plain()["benchmarks"]
    assert not faults
    return Benchmark.model_validate_json(json.dumps(filled), strict=True)


@pytest.mark.parametrize("preset", benchmark_presets())
def test_every_preset_is_a_benchmark_and_stays_what_it_is(preset: str) -> None:
    found = benchmark(preset)
    assert Benchmark.model_validate_json(found.model_dump_json(), strict=True) == found
    if found.source.environment not in known_environments():
        pytest.skip(f"NOT RUN: {found.source.environment} is not registered here")


def test_protocols_are_the_published_ones_and_the_recipe_has_the_last_word() -> None:
    aime = benchmark("aime25")
    assert (aime.tasks, aime.samples, aime.sampling.temperature, aime.sampling.top_p) == (30, 64, 1.0, 1.0)
    mine = benchmark("aime25", samples=4, sampling={"temperature": 0.7}, source={"thinking": False})
    assert (mine.samples, mine.sampling.temperature, mine.sampling.max_new_tokens) == (4, 0.7, 131_072)
    assert not mine.source.thinking
    assert mine.source.layout == "math"


def test_an_unknown_benchmark_is_told_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    full = load_recipe("quickstart").model_dump(mode="json")
    full["benchmarks"] = [{"name": "exam", "preset": "aime52", "source": {"path": "rows.jsonl"}}]
    recipe.write_text(json.dumps(full, indent=1))
    with pytest.raises(UserError, match="'aime52' is not a benchmark known here") as caught:
        load_recipe(recipe)
    assert "did you mean 'aime2" in str(caught.value)


def test_a_recipes_preset_reads_rows_beside_it(tmp_path: Path) -> None:
    (tmp_path / "aime.jsonl").write_text('{"problem": "1 + 1?", "answer": 2}\n')
    full = load_recipe("quickstart").model_dump(mode="json")
    full["benchmarks"] = [{"name": "exam", "preset": "aime25", "source": {"path": "aime.jsonl"}}]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(full, indent=1))
    (found,) = load_recipe(recipe).benchmarks
    (task,) = source_tasks(found.source, split="test", seed=0, count=found.tasks)
    assert task.thinking
    assert task.messages[0]["content"].startswith("1 + 1?\nPut the final answer")


PRIVATE = base64.b64encode(
    zlib.compress(pickle.dumps(json.dumps([{"input": "2", "output": "4", "testtype": "stdin"}])))
).decode()
ROWS: dict[str, tuple[dict[str, Any], str]] = {  # a row of each public layout, and a right answer
    "mmlu": ({"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1}, "\\boxed{B}"),
    "mmlu_pro": ({"question": "2 + 2?", "options": ["3", "4", "5"], "answer": "B"}, "\\boxed{B}"),
    "gpqa_diamond": (
        {"Question": "2 + 2?", "Correct Answer": "4", **{f"Incorrect Answer {n}": f"1{n}" for n in "123"}},
        "",
    ),
    "longbench_v2": (
        {"context": "Long.", "question": "Q?", **{f"choice_{c}": c * 3 for c in "ABCD"}, "answer": "C"},
        "\\boxed{C}",
    ),
    "aime24": ({"problem": "6 * 7?", "answer": "42"}, "\\boxed{42}"),
    "hmmt": ({"problem": "1/2 + 1/4?", "answer": "3/4"}, "\\boxed{3/4}"),
    "ifeval": (
        {"prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "None here.",
    ),
    "ifbench": (
        {
            "prompt": "No commas.",
            "instruction_id_list": ["count:numbers"],
            "kwargs": [{"N": 1, "capital_letters": None}],
        },
        "Sure, 7.",
    ),
    "livecodebench_v6": (
        {
            "question_content": "Double it.",
            "starter_code": "",
            "public_test_cases": '[{"input": "1", "output": "2", "testtype": "stdin"}]',
            "private_test_cases": PRIVATE,
            "metadata": "{}",
        },
        "```python\nprint(2 * int(input()))\n```",
    ),
    "ruler": ({"input": "Long. Which?", "outputs": ["123"]}, "It is 123."),
}  # fmt: skip


@pytest.mark.parametrize("preset", ROWS)
def test_rows_of_the_public_layouts_load_and_right_answers_pass(preset: str, tmp_path: Path) -> None:
    row, right = ROWS[preset]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    source = benchmark(preset, path).source
    environment = get_environment(source.environment)
    (task,) = load_tasks(environment, source).tasks
    right = right or f"\\boxed{{{task.fields['expected_answer']}}}"
    thought = f"hm</think>{right}" if task.thinking else right
    good, bad = environment.grade(task, [thought, "hm</think>I do not know, sorry"])
    assert (good.error, bad.error) == (None, None)
    assert good.reward == 1
    assert preset == "ifeval" or bad.reward == 0


def test_ifbench_counts_prompts_with_all_instructions_followed_loosely(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    ids = ["punctuation:no_comma", "detectable_format:title"]
    path.write_text(json.dumps({"prompt": "Go.", "instruction_id_list": ids, "kwargs": [{}, {}]}) + "\n")
    source = benchmark("ifbench", path).source
    environment = get_environment("ifbench")
    (task,) = load_tasks(environment, source).tasks
    answers = ["h</think><<Title>> words", "h</think>only words", "h</think>Here, my title:\n<<Title>> words"]
    assert [grade.reward for grade in environment.grade(task, answers)] == [1, 0, 1]


def test_livecodebench_pro_takes_its_tests_from_a_file(tmp_path: Path) -> None:
    rows, tests = tmp_path / "rows.jsonl", tmp_path / "tests.jsonl"
    rows.write_text(json.dumps({"problem_id": "2048A", "problem_statement": "Double it."}) + "\n")
    unit_tests = {"inputs": ["2\n"], "outputs": ["4\n"], "time_limit_secs": 1}
    tests.write_text(json.dumps({"problem_id": "2048A", "unit_tests": unit_tests}) + "\n")
    source = benchmark("livecodebench_pro", rows, source={"options": {"tests": str(tests)}}).source
    environment = get_environment(source.environment).with_options(source.options)
    (task,) = load_tasks(environment, source).tasks
    assert task.messages[0]["content"].startswith("Double it.")
    program = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }"
    right, wrong = environment.grade(task, [f"§</think>```cpp\n{program}\n```", "§</think>int main() {}"])
    if right.error is not None:
        pytest.skip(f"NOT RUN: {right.error}")
    assert (right.reward, wrong.reward) == (1, 0)


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/kascade-boom").touch, ())


@pytest.mark.parametrize(
    ("preset", "row", "field"),
    [
        ("mmlu", {"question": "?", "choices": ["a", "b"], "answer": 2}, "answer"),
        ("mmlu", {"question": "?", "choices": "ab", "answer": 0}, "choices"),
        ("gpqa_diamond", {"Question": "?"}, "Correct"),
        ("aime25", {"problem": "?", "answer": " "}, "answer"),
        ("arenahard_v2", {"prompt": "Hi"}, "baseline"),
        ("aa_lcr", {"question": "?", "answer": "x"}, "documents"),
        (
            "livecodebench_v6",
            {
                "question_content": "?",
                "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Boom()))).decode(),
            },
            "private_test_cases",
        ),
    ],
)
def test_faulty_rows_name_their_field_and_run_nothing(
    preset: str, row: dict[str, Any], field: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    source = benchmark(preset, path).source
    with pytest.raises(UserError, match=rf"rows\.jsonl:1.*{field}"):
        load_tasks(get_environment(source.environment), source)
    assert not Path("/tmp/kascade-boom").exists()
