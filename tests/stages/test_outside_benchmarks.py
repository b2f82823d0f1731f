"""Benchmarks of other tools in a cascade: the guard holds them, in one look where nothing is drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_steps import BOTH, FORGET, HARSH, guarded, start
from toy_cascade import LETTERS, SURE, make_run

from kascade.errors import UserError
from kascade.exams.evaluate import score_by
from kascade.exams.exams import Draw
from kascade.guard.lineage import read_outcomes
from kascade.guard.scores import Score, read_scores
from kascade.guard.verdict import read_verdict
from kascade.run.context import open_run
from kascade.steps import steps
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder

WIDE = {"margin": 0.15}  # one answer for each of 40 tasks shows no smaller one
pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks were not asked")
HARNESS = """
import json, random, sys, urllib.request
url, model, out, tasks, samples, seed = sys.argv[1:]
rng = random.Random(0)
for number in range(int(tasks)):
    words = " ".join(["a", *(rng.choice("abcdefgh") for _ in range(4))])
    for sample in range(int(samples)):
        body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 4,
                "seed": int(seed) + 1000 * number + sample, "temperature": TEMPERATURE}
        request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            said = json.load(reply)["choices"][0]["message"]["content"].split()
        line = {"task": str(number), "sample": sample, "reward": said.count("a") / max(1, len(said)),
                "answer": " ".join(said)}
        with open(out + "/letters.jsonl", "a") as file:
            file.write(json.dumps(line) + "\\n")
"""


def lm_eval_task(folder: Path, letter: str, documents: int = 40) -> dict[str, Any]:
    """Options of a multiple-choice task: which letter comes first?"""
    folder.mkdir(exist_ok=True)
    rest = [
        " ".join(LETTERS[(n * k) % 8] for k in (1, 3, 5, 7)) + f" {LETTERS[n // 8]}" for n in range(documents)
    ]
    rows = [
        {"words": f"{letter} {one}", "choices": list(LETTERS), "label": LETTERS.index(letter)} for one in rest
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": f"first_{letter}",
        "output_type": "multiple_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{words}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    }
    (folder / f"first_{letter}.yaml").write_text(json.dumps(task))
    return {"task": f"first_{letter}", "include": str(folder), "chat": True, "domain": "knowledge"}


def benchmark(name: str, environment: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    sampling = {"max_new_tokens": 4}
    return {"name": name, "source": {"environment": environment, "options": options}, "tasks": 40,
            "sampling": sampling, **more}  # fmt: skip


def command(folder: Path, temperature: float) -> list[str]:
    script = folder / f"harness{temperature}.py"
    script.write_text(HARNESS.replace("TEMPERATURE", str(temperature)))
    return [sys.executable, str(script), "{url}", "{model}", "{out}", "{tasks}", "{samples}", "{seed}"]


def run_with(tmp_path: Path, *benchmarks: dict[str, Any], **guard: Any) -> RunFolder:
    harsher = {**FORGET, "optimizer": {**HARSH, "learning_rate": 3e-2}}  # forgets whatever rounding does
    layout = make_run(tmp_path, BOTH, harsher, **guard)
    recipe = json.loads(layout.resolved_recipe.read_text())
    recipe["benchmarks"] = [*recipe["benchmarks"][:1], *benchmarks]
    layout.resolved_recipe.write_text(json.dumps(recipe))
    return layout


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("data_sets")))


@pytest.mark.slow
def test_a_loss_on_a_task_of_lm_eval_is_called_in_one_look_and_recovered(tmp_path: Path) -> None:
    options = lm_eval_task(tmp_path / "tasks", "b")
    layout = run_with(tmp_path, benchmark("first_b", "lm_eval", options), **SURE, retention=WIDE)
    first = guarded(layout, "sft", start(layout))
    guarded(layout, "forget", first)
    accepted, recovered = read_outcomes(layout)
    assert (accepted.decision, recovered.decision) == ("accepted", "recovered")
    lost = read_verdict(layout, recovered.verdicts[0])
    assert lost is not None and lost.lost_benchmarks == ("first_b",)
    found = lost.benchmarks["first_b"]
    assert (found.samples_before, found.samples_after, found.num_tasks) == (1, 1, 40)
    assert found.p is not None and found.p == pytest.approx(2 * found.p_tasks)  # two accepted checkpoints
    assert recovered.recovered["knowledge"] > 0.8
    candidate = CheckpointRef.parse(lost.checkpoint).digest
    screen, confirm = (read_scores(layout, candidate, phase)["first_b"] for phase in ("screen", "confirm"))
    assert screen.rewards == confirm.rewards and screen.fixed


def test_a_tool_is_run_against_the_served_checkpoint(tmp_path: Path) -> None:
    fixed = benchmark("greedy", "harness", {"command": command(tmp_path, 0.0), "domain": "math"}, tasks=6)
    options = {"command": command(tmp_path, 1.0), "domain": "math", "sampled": True}
    drawn = benchmark("drawn", "harness", options, tasks=6)
    layout = run_with(tmp_path, fixed, drawn)
    base = start(layout)

    def score(name: str, draw: Draw) -> Score:
        with open_run(str(layout.root), "test") as run:
            score_by(run, base, [name], draw)
        return read_scores(layout, CheckpointRef.parse(base).digest, draw.phase, draw.round)[name]

    screened = score("greedy", Draw("screen"))
    assert screened.num_tasks == 6 and screened.num_samples == 1 and screened.fixed
    assert score("greedy", Draw("confirm", 0, 1)).rewards == screened.rewards
    two, four = score("drawn", Draw("confirm", 0, 2)), score("drawn", Draw("confirm", 0, 4))
    assert not two.fixed
    assert {task: rewards[:2] for task, rewards in four.rewards.items()} == two.rewards
    assert score("drawn", Draw("confirm", 1, 2)).rewards != two.rewards, "another round is fresh"


def test_results_that_are_made_elsewhere_are_waited_for(tmp_path: Path) -> None:
    options = {"results": f"{tmp_path}/elsewhere/{{checkpoint}}.jsonl", "domain": "math"}
    layout = run_with(tmp_path, benchmark("elsewhere", "harness", options))
    base = steps.preflight(str(layout.root))
    with pytest.raises(UserError, match="no results are there yet") as missing:
        steps.evaluate(str(layout.root), "base", base, base)
    (fault,) = missing.value.faults
    Path(fault.where).parent.mkdir(parents=True)
    lines = [{"task": str(n), "reward": n % 2, "answer": "a"} for n in range(10)]
    Path(fault.where).write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps.evaluate(str(layout.root), "base", base, base)
    found = read_scores(layout, CheckpointRef.parse(base).digest, "screen")["elsewhere"]
    assert found.mean == 0.5 and found.num_tasks == 10


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no such benchmark: gpqa')"]
    layout = run_with(tmp_path, benchmark("bad", "harness", {"command": failing}))
    base = steps.preflight(str(layout.root))
    with pytest.raises(UserError, match="no such benchmark: gpqa"):
        steps.evaluate(str(layout.root), "base", base, base)


def test_preflight_finds_what_cannot_be_asked(tmp_path: Path) -> None:
    layout = run_with(
        tmp_path,
        benchmark("unknown", "lm_eval", {"task": "no_such_task"}),
        benchmark("sampled", "lm_eval", {**lm_eval_task(tmp_path / "tasks", "c"), "sampled": True}),
        benchmark("gone", "harness", {"command": ["no-such-tool", "{out}"]}),
    )
    with pytest.raises(UserError) as found:
        steps.preflight(str(layout.root))
    said = str(found.value)
    assert "no_such_task" in said and "draws nothing" in said and "no-such-tool" in said
