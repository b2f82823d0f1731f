"""submit, watch and schedule: the real client of Kubeflow Pipelines against a stub of its API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kubeflow_stub import Kubeflow, serving
from typer.testing import CliRunner, Result

import kascade
from kascade.cli import app
from kascade.errors import ClusterError, KascadeError, UserError
from kascade.run.process import StepError, marked, marked_wait
from pipelines.literal import FILLED_IN
from pipelines.remote import KubeflowApi
from pipelines.remote_watch import words

RECIPE = "tiny.yaml"
TEXT = """
kascade: 1
name: tiny
model: {source: builtin://mini-nemotron-h}
stages: [{kind: sft, name: sft, steps: 2, data: [{source: {environment: mcqa}}]}]
benchmarks: [{name: knowledge, source: {environment: mcqa}}]
guard: {recovery: {rounds: 0}}
"""


@pytest.fixture
def kubeflow() -> Kubeflow:
    return Kubeflow()


@pytest.fixture(autouse=True)
def host(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    token = tmp_path / "token"
    token.write_text(kubeflow.token + "\n")
    with serving(kubeflow) as address:
        monkeypatch.setenv("KASCADE_KFP_HOST", address)
        monkeypatch.setenv("KASCADE_KFP_TOKEN_FILE", str(token))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        Path(RECIPE).write_text(TEXT)
        yield address


def kascade_verb(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def submit(*more: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(kascade_verb("submit", RECIPE, "--json", *more).stdout)
    return found


def test_a_recipe_is_uploaded_once_a_content_and_every_run_has_its_version(
    kubeflow: Kubeflow, host: str
) -> None:
    first = submit()
    again = submit("--run-name", "again")
    other = submit("--seed", "7")
    back = submit()
    assert len(kubeflow.pipelines) == 1
    assert len(kubeflow.versions) == 2
    versions = [run["pipeline_version_reference"]["pipeline_version_id"] for run in kubeflow.runs]
    assert versions[0] == versions[1] == versions[3] != versions[2]
    assert first["link"] == f"{host}/#/runs/details/{first['run_id']}"
    assert [one["display_name"] for one in kubeflow.experiments] == ["kascade"]
    assert kubeflow.runs[1]["display_name"] == "again"
    assert (again["version"]["fresh"], other["version"]["fresh"]) == (False, True)  # type: ignore[index]
    assert back["version"]["version_id"] == first["version"]["version_id"]  # type: ignore[index]


def test_parameters_of_the_form_are_checked_before_anything_is_sent(kubeflow: Kubeflow) -> None:
    submit("--param", "run=/kascade/runs/mine")
    assert kubeflow.runs[0]["runtime_config"]["parameters"] == {"run": "/kascade/runs/mine"}
    submit("--param", 'overrides={"name": "$$a $(b) {{c}}"}')
    sent = kubeflow.runs[1]["runtime_config"]["parameters"]["overrides"]
    assert not FILLED_IN.search(sent) and json.loads(sent) == {"name": "$$a $(b) {{c}}"}
    calls = len(kubeflow.calls)
    changed = kascade_verb("submit", RECIPE, "--json", "--param", "run=/kascade/$(x)", code=2)
    assert "would be changed on its way" in changed.stdout
    wrong = kascade_verb("submit", RECIPE, "--json", "--param", "runn=x", code=2)
    assert "did you mean 'run'?" in wrong.stdout
    long = kascade_verb("submit", RECIPE, "--json", "--param", f"run={'x' * 10_001}", code=2)
    assert "at most 10,000" in long.stdout
    assert len(kubeflow.calls) == calls


def test_the_token_is_sent_and_never_shown(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = kascade_verb("submit", RECIPE).output
    monkeypatch.delenv("KASCADE_KFP_TOKEN_FILE")
    monkeypatch.setenv("KASCADE_KFP_TOKEN", "an-old-secret")
    refused = kascade_verb("submit", RECIPE, code=1).output
    assert "refuses the token" in refused
    assert "an-old-secret" not in refused + repr(KubeflowApi.find())
    assert kubeflow.token not in shown
    monkeypatch.delenv("KASCADE_KFP_TOKEN")
    assert "asks for a token, and none was given" in kascade_verb("submit", RECIPE, code=1).output


def test_a_cluster_that_is_not_there_and_one_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    away = kascade_verb("submit", RECIPE, "--host", "http://127.0.0.1:9", code=1).output
    assert "cannot be reached" in away
    monkeypatch.delenv("KASCADE_KFP_HOST")
    for name in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="no Kubeflow is named"):
        KubeflowApi.find()
    with pytest.raises(UserError) as caught:
        KubeflowApi.find(host="cluster:80", token_file=Path("nowhere"))
    assert len(caught.value.faults) == 2


def node(name: str, state: str, *inside: str, number: int = 0) -> dict[str, object]:
    """One of Argo's nodes as the API lists it. inside: ids of its children."""
    times = {"create_time": "2026-01-01T00:00:00Z", "start_time": f"2026-01-01T00:00:0{number % 10}Z"}
    ended = {"end_time": "2026-01-01T00:01:05Z"} if state in ("SUCCEEDED", "FAILED") else {}
    children = [{"task_id": one} for one in inside]
    return {"task_id": name, "display_name": name, "state": state, "child_tasks": children, **times, **ended}


def step(name: str, state: str) -> list[dict[str, object]]:
    """All nodes of one step with Kubeflow's default, which puts a Retry node above each."""
    driver = [node(f"{name}-driver", "SUCCEEDED"), node(f"{name}-driver(0)", "SUCCEEDED")]
    executor = {
        **node(f"{name}.executor(0)", state),
        "display_name": "executor(0)",
        "pod_name": f"pod-of-{name}",
    }
    between = [node(name, state, f"{name}(0)", number=1), node(f"{name}(0)", state, f"{name}.executor(0)")]
    return [*driver, *between, executor]


def story(*states: str) -> list[dict[str, object]]:
    root = [node("tiny-abcde", "RUNNING"), node("root-driver", "SUCCEEDED"), node("condition-1", "RUNNING")]
    begun = {"task_details": [*root, *step("preflight", "SUCCEEDED"), *step("sft-train", "RUNNING")]}
    steps: list[dict[str, object]] = [
        {"state": "RUNNING", "run_details": {"task_details": root}},
        {"run_details": begun},
        {"run_details": begun},
    ]
    return [*steps, *({"state": state} for state in states)]


def test_a_run_is_followed_to_its_end_through_a_failing_answer(kubeflow: Kubeflow) -> None:
    run_id = str(submit()["run_id"])
    kubeflow.runs[0]["story"] = story("SUCCEEDED")
    kubeflow.runs[0]["story"][3]["run_details"] = {"task_details": step("sft-train", "SUCCEEDED")}
    kubeflow.fail = [503]
    lines = kascade_verb("watch", run_id, "--every", "0.05").stdout.splitlines()
    assert lines[:2] == ["succeeded  preflight  1 min 04 s", "succeeded  sft: training  1 min 04 s"]
    assert lines[2].startswith("succeeded  http")
    assert len(lines) == 3


def test_a_failed_run_ends_with_the_steps_own_words(kubeflow: Kubeflow) -> None:
    run_id = str(submit()["run_id"])
    error: StepError = {
        "type": "JobFailed",
        "message": "node 3\nran out of memory",
        "exit_code": 1,
        "faults": [],
    }
    kubeflow.logs["pod-of-sft-train"] = f"much before\n{marked(error)}\nTraceback ..."
    end = {"state": "FAILED", "run_details": {"task_details": step("sft-train", "FAILED")}}
    kubeflow.runs[0]["story"] = [*story(), end]
    failed = kascade_verb("watch", run_id, "--every", "0.05", code=1).stdout.splitlines()
    assert failed[1] == "failed  sft: training  1 min 04 s" and failed[2].startswith("failed  http")
    assert failed[-2:] == ["JobFailed: node 3", "ran out of memory"]
    assert "not found" in kascade_verb("watch", "no-such-run", code=1).output


def test_a_run_that_waits_says_for_what_and_is_not_taken_for_done(kubeflow: Kubeflow) -> None:
    """Kubeflow calls it succeeded; the exit code is that of `kascade run` in the same case."""
    run_id = str(submit()["run_id"])
    words = "waiting for approval: rlhf waits for a person's approval since today."
    kubeflow.logs["pod-of-report"] = f"INFO begun\n{marked_wait('old')}\n{marked_wait(words)}\nmore"
    done = [*step("rlhf-skip", "SUCCEEDED"), *step("report", "SUCCEEDED")]
    kubeflow.runs[0]["story"] = [{"state": "SUCCEEDED", "run_details": {"task_details": done}}]
    lines = kascade_verb("watch", run_id, "--every", "0.05", code=5).stdout.splitlines()
    assert "succeeded  rlhf: not begun" in " ".join(lines) and lines[-1] == words
    found = json.loads(kascade_verb("watch", run_id, "--every", "0.05", "--json", code=5).stdout)
    assert found["waiting"] == words
    kubeflow.logs["pod-of-report"] = "INFO nothing"
    kascade_verb("watch", run_id, "--every", "0.05")


def test_a_run_in_the_pages_retry_is_followed_again(kubeflow: Kubeflow) -> None:
    """The failed step runs and ends a second time; what had succeeded is not told twice."""
    run_id = str(submit()["run_id"])
    kubeflow.runs[0]["story"] = [
        {"state": "RUNNING", "run_details": {"task_details": step("sft-train", state)}}
        for state in ("FAILED", "RUNNING", "SUCCEEDED", "SUCCEEDED")
    ] + [{"state": "SUCCEEDED"}]
    lines = kascade_verb("watch", run_id, "--every", "0.05").stdout.splitlines()
    told = [line.split("  ")[:2] for line in lines[:-1]]
    assert told == [["failed", "sft: training"], ["succeeded", "sft: training"]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base-train-evaluate", "base: benchmarks"),
        ("if-rl-recover-1", "if-rl: recovery 1: training"),
        ("if-rl-recover-1-evaluate", "if-rl: recovery 1: benchmarks"),
        ("sft-settle", "sft: settling"),
        ("report", "report"),
        ("sft-train(0)", None),
        ("sft-train-driver", None),
        ("executor", None),
        ("condition-2", None),
        ("attempts-1-sft", None),
        ("stage-1-sft", None),
        ("tiny-abcde", None),
    ],
)
def test_names_of_nodes_in_a_persons_words(name: str, said: str | None) -> None:
    assert words(name) == said


def test_a_driver_that_fails_counts_as_its_step() -> None:
    assert words("sft-train-driver", failed=True) == "sft: training (could not be started)"


def test_from_a_notebook(kubeflow: Kubeflow, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = kascade.submit(RECIPE, host=host)
    kubeflow.runs[0]["story"] = story("SUCCEEDED")
    assert run.wait(every_s=0.05) == "succeeded"
    assert "succeeded preflight" in capsys.readouterr().out
    bad = kascade.submit(RECIPE, {"sft": {"steps": 3}}, host=host)
    kubeflow.runs[1]["story"] = story("FAILED")
    with pytest.raises(ClusterError, match="failed"):
        bad.wait(every_s=0.05)
    assert len(kubeflow.versions) == 2
    kubeflow.logs["pod-of-report"] = marked_wait("budget reached: 2.00 CPU hours are used")
    done = {"state": "SUCCEEDED", "run_details": {"task_details": step("report", "SUCCEEDED")}}
    held = kascade.submit(RECIPE, host=host)
    kubeflow.runs[2]["story"] = [done]
    with pytest.raises(KascadeError, match="budget reached"):
        held.wait(every_s=0.05)


def schedule(*more: str) -> dict[str, object]:
    result = kascade_verb("schedule", "apply", RECIPE, "--cron", "30 4 * * 1", "--json", *more)
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_applying_a_schedule_again_changes_nothing_and_another_replaces_it(kubeflow: Kubeflow) -> None:
    assert schedule()["outcome"] == "created"
    assert schedule()["outcome"] == "unchanged"
    made = kubeflow.recurring[0]
    assert made["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * 1"
    assert made["pipeline_version_reference"] == {"pipeline_id": kubeflow.pipelines[0]["pipeline_id"]}
    assert (made["no_catchup"], made["max_concurrency"], made["mode"]) == (True, "1", "ENABLE")
    assert schedule("--param", "run=/kascade/runs/weekly")["outcome"] == "replaced"
    assert len(kubeflow.recurring) == 1
    assert kubeflow.recurring[0]["recurring_run_id"] != made["recurring_run_id"]
    kubeflow.recurring.append({**kubeflow.recurring[0], "recurring_run_id": "left-by-a-killed-apply"})
    assert schedule("--param", "run=/kascade/runs/weekly")["outcome"] == "replaced"
    assert len(kubeflow.recurring) == 1


def test_the_newest_version_is_followed_unless_pinned(kubeflow: Kubeflow) -> None:
    schedule()
    recurring = kubeflow.recurring[0]["recurring_run_id"]
    changed = schedule("--seed", "7")
    assert changed["outcome"] == "unchanged"
    assert len(kubeflow.versions) == 2
    back = schedule()  # the first content again: it must be the newest once more
    assert back["outcome"] == "unchanged"
    assert kubeflow.newest(kubeflow.pipelines[0]["pipeline_id"])["display_name"].endswith("-2")
    assert kubeflow.versions[0]["pipeline_spec"] == kubeflow.versions[2]["pipeline_spec"]
    assert kubeflow.recurring[0]["recurring_run_id"] == recurring
    pinned = schedule("--pin")
    assert pinned["outcome"] == "replaced"
    assert "pipeline_version_id" in kubeflow.recurring[0]["pipeline_version_reference"]


def test_schedules_are_listed_and_removed_and_those_of_others_are_not(kubeflow: Kubeflow) -> None:
    schedule("--timezone", "Asia/Tokyo")
    schedule("--name", "other", "--timezone", "Asia/Tokyo")
    schedule("--name", "third")
    kubeflow.recurring.append(
        {**kubeflow.recurring[0], "recurring_run_id": "theirs", "description": "by hand"}
    )
    listed = json.loads(kascade_verb("schedule", "list", "--json").stdout)
    assert [(one["name"], one["when"], one["utc"]) for one in listed][:1] == [
        ("tiny", "30 4 * * 1 Asia/Tokyo", "0 30 19 * * 0")
    ]
    kascade_verb("schedule", "remove", "tiny")
    names = [one["recurring_run_id"] for one in kubeflow.recurring]
    assert len(names) == 3
    assert "theirs" in names
    kascade_verb("schedule", "remove", "tiny", code=2)


def cron_line(*more: str) -> str:
    """The command of a printed line, its times taken off; the schedule's time has always come."""
    printed = kascade_verb("schedule", "apply", RECIPE, "--cron", "* * * * *", "--local", *more).stdout
    (line,) = printed.splitlines()
    assert line.startswith("* * * * * ") and " -m pipelines.due '* * * * *' Europe/Berlin && cd " in line
    return line.removeprefix("* * * * * ")


def test_lines_for_the_local_cron_run_the_same_command() -> None:
    command = cron_line("--timezone", "Europe/Berlin", "--set", "guard.min_drop=0.05", "--seed", "3")
    assert f"run {RECIPE} --seed 3 --set guard.min_drop=0.05 --out" in command


@pytest.mark.slow
def test_a_line_does_its_work_under_cron_and_does_nothing_twice(tmp_path: Path) -> None:
    """As cron runs it: a shell, next to no environment, another folder; `%` would be a line's end to it."""
    few = (
        "--set",
        "benchmarks.knowledge.tasks=8",
        "--set",
        "benchmarks.knowledge.sampling.max_new_tokens=12",
        "--set",
        "guard.weak_exams=warn",
    )
    command = cron_line("--timezone", "Europe/Berlin", *few)
    assert "%" not in command.replace("\\%", "")
    bare = {"HOME": str(tmp_path), "LOGNAME": "someone", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    bare |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # a checkout by path
    run, log = tmp_path / "runs" / "tiny", tmp_path / "runs" / "tiny.cron.log"
    made: list[dict[str, int]] = []
    for _ in range(2):
        shell = ["/bin/sh", "-c", command.replace("\\%", "%")]
        done = subprocess.run(shell, cwd="/", env=bare, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), log.read_text()
        kept = [path for name in ("checkpoints", "scores", "verdicts") for path in (run / name).rglob("*")]
        made.append({str(path): path.stat().st_mtime_ns for path in kept if path.is_file()})
    assert made[0] and made[1] == made[0]
    assert log.read_text().count("report: ") == 2
    assert (run / "report.html").exists()
