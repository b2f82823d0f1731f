"""A run's folder: one place knows its paths, and what is broken in it is an error or a noted problem."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kascade.errors import UserError
from kascade.guard.lineage import read_outcomes
from kascade.guard.scores import all_scores, read_score
from kascade.guard.verdict import all_verdicts, read_verdict
from kascade.recipe.load import load_recipe
from kascade.recipe.run_recipe import find_run_recipe, keep_recipe, read_run_recipe
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
HOMES = {ROOT / "kascade/storage" / name for name in ("run_paths.py", "training_folder.py")}
FOLDERS = {"checkpoints", "training", "scores", "samples", "answers", "tasks", "verdicts", "outcomes"}
FOLDERS |= {"costs", "progress", "logs", "kfp", "mlflow", "judge"}
FILES = {"recipe.resolved.json", "final.json", "metrics.jsonl", "preflight.json", "report.html"}
FILES |= {"model_card.md", "mlflow.db", "tracking_id", "pass_rates.json", "teacher_gaps.json", "result.json"}
FILES |= {".state.json", ".error.json", ".result.json"}
OTHER_FOLDERS = {  # of a lab, and of this machine's cache
    ("kascade/lab/race.py", "training"),
    ("kascade/storage/cache.py", "checkpoints"),
}


def paths_by_heart(tree: ast.AST) -> Iterator[str]:
    """Names of a run's folders joined to a path or searched for, and names of its files anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield from (name for name in FILES if node.value.endswith(name))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            text = _text(node.right)
            yield from (name for name in FOLDERS if text == name or text.startswith(f"{name}/"))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("glob", "rglob", "joinpath"):
            found = [_text(argument) for argument in node.args]
            yield from (name for name in FOLDERS for text in found if text.split("/")[0] == name)


def _text(node: ast.expr) -> str:
    """A string, or the constant beginning of an f-string."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _text(node.values[0])
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_nothing_else_knows_a_path_of_a_run_by_heart() -> None:
    found = [
        (path.relative_to(ROOT).as_posix(), name)
        for top in ("kascade", "pipelines", "components")
        for path in sorted((ROOT / top).rglob("*.py"))
        if path not in HOMES
        for name in paths_by_heart(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert sorted(set(found) - OTHER_FOLDERS) == []


@pytest.mark.parametrize(
    "code",
    [
        'root / "costs"',
        'root / f"scores/{digest}"',
        'root.glob("outcomes/*.json")',
        'open("x/metrics.jsonl")',
    ],
)
def test_a_path_by_heart_is_found(code: str) -> None:
    assert list(paths_by_heart(ast.parse(code)))


def broken_run(root: Path) -> RunFolder:
    folder = RunFolder(root)
    write_text(folder.resolved_recipe, '{"kascade": 99}')
    write_text(folder.outcome("sft", "abc"), "{")
    write_text(folder.score("d" * 64, "mcqa", "screen", 0), "[]")
    write_text(folder.verdict("sft/train-abc"), '{"id": 3}')
    write_text(folder.cost("sft.train"), "3")
    write_text(folder.step_error("sft.train"), "nothing")
    write_text(folder.checkpoint("sft/train-abc") / "manifest.json", "{}")
    return folder


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: read_run_recipe(folder.root),
        read_outcomes,
        all_scores,
        lambda folder: read_score(folder, "d" * 64, "mcqa", "screen"),
        all_verdicts,
        lambda folder: read_verdict(folder, "sft/train-abc"),
        RunFolder.costs,
        RunFolder.errors,
        lambda folder: folder.error("sft.train"),
        RunFolder.checkpoints,
    ],
)
def test_whatever_is_broken_says_where_and_what_to_do(read: object, tmp_path: Path) -> None:
    with pytest.raises(UserError) as found:
        read(broken_run(tmp_path))  # type: ignore[operator]
    (fault,) = found.value.faults
    assert fault.where.startswith(str(tmp_path)) and "cannot be read" in fault.what and fault.remedy


def test_a_report_leaves_out_what_is_broken_and_says_so(tmp_path: Path) -> None:
    broken_run(tmp_path)
    folder = RunFolder.tolerant(tmp_path)
    assert find_run_recipe(folder) is None and read_outcomes(folder) == [] and all_scores(folder) == []
    assert all_verdicts(folder) == {} and folder.costs() == {} and folder.errors() == {}
    assert folder.checkpoints() == []
    named = {problem.partition(":")[0] for problem in folder.problems or []}
    assert named == {
        "recipe.resolved.json",
        "outcomes/sft-abc.json",
        f"scores/{'d' * 16}/mcqa.screen-0.json",
        "verdicts/sft/train-abc.json",
        "costs/sft.train.json",
        "logs/sft.train.error.json",
        "checkpoints/sft/train-abc/manifest.json",
    }


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.costs() == {} and folder.states() == [] and folder.error("train") is None
    assert folder.final_checkpoint() is None and folder.result() is None and folder.checkpoints() == []
    with pytest.raises(UserError, match="not the folder of a run"):
        read_run_recipe(tmp_path)


def test_a_recipe_that_is_kept_again_says_what_is_redone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = load_recipe("quickstart")
    assert keep_recipe(folder, first) is None
    assert keep_recipe(folder, first) == {} and read_run_recipe(tmp_path) == first
    changed = keep_recipe(folder, load_recipe("quickstart", ["swe_rl.steps=1"]))
    assert changed is not None and "swe_rl" in changed


def test_the_cost_of_a_second_try_is_added_and_the_peak_is_the_higher_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_cost("train", {}, {"cpu_s": 1.0, "peak_memory_bytes": 7})
    before = folder.cost_so_far("train")
    folder.write_cost("train", before, {"cpu_s": 2.0, "loading_s": 0.5, "peak_memory_bytes": 5})
    both = {"cpu_s": 3.0, "loading_s": 0.5, "peak_memory_bytes": 7, "tries": 2}
    assert folder.costs() == {"train": both}
    folder.write_cost(
        "train", folder.cost_so_far("train"), {"cpu_s": 1.0, "peak_memory_bytes": 5}, ended=False
    )
    assert folder.costs()["train"] == {**both, "cpu_s": 4.0, "tries": 3, "under_way": True}
    folder.write_cost("train", folder.cost_so_far("train"), {"cpu_s": 1.0, "peak_memory_bytes": 5})
    assert folder.costs()["train"] == {**both, "cpu_s": 5.0, "tries": 4}
