"""Where everything of one run lies, under the run's URI. Nothing else knows a path by heart.

    recipe.yaml              as the user wrote it         recipe.resolved.json   completed and checked
    pipeline.yaml            what runs                    report.html, model_card.md
    final.json               which checkpoint the cascade ended with
    checkpoints/ID/          weights, tokenizer, config, manifest.json (written last)
    training/ID/             metrics.jsonl (the curves), state/ (what resume needs)
    scores/DIGEST/NAME.PHASE-ROUND.json    one benchmark on one checkpoint, kept per task
    samples/DIGEST/NAME.jsonl              some answers with their rewards
    answers/DIGEST/NAME.PHASE-ROUND.jsonl  every answer of an exam with its grade, task by task
    judge/                   what a judge was asked and said: transcript.jsonl, cache/
    verdicts/ID.json         the guard's word on checkpoint ID
    outcomes/STAGE-KEY.json  what the stage ended with: the accepted checkpoint and why
    costs/STEP.json          wall, CPU, memory and time by kind of work
    progress/STEP.json       how far a step is
    logs/STEP.log, .state.json, .error.json      what a step's task wrote, how it stands, its own error
    kfp/                     outputs and cache of the local runner
    tracking_id              what MLflow knows this run by
    mlflow.db, mlflow/       its database and artifacts, where no server is named

ID is `<stage>/<attempt>-<key>`: attempt is `train`, `recover-1` or `recover-2`, and key a short
hash of all that determines the result, so a changed recipe never overwrites an earlier result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Paths of a run that lies in a local folder."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def resolved_recipe(self) -> Path:
        return self.root / "recipe.resolved.json"

    @property
    def pipeline(self) -> Path:
        return self.root / "pipeline.yaml"

    @property
    def preflight(self) -> Path:
        return self.root / "preflight.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def final(self) -> Path:
        return self.root / "final.json"

    @property
    def model_card(self) -> Path:
        return self.root / "model_card.md"

    def checkpoint(self, checkpoint_id: str) -> Path:
        return self.root / "checkpoints" / checkpoint_id

    def training(self, checkpoint_id: str) -> Path:
        return self.root / "training" / checkpoint_id

    @property
    def all_scores(self) -> Path:
        return self.root / "scores"

    def scores(self, digest: str) -> Path:
        return self.all_scores / digest[:16]

    def score(self, digest: str, benchmark: str, phase: str, draw: int) -> Path:
        return self.scores(digest) / f"{benchmark}.{phase}-{draw}.json"

    def samples(self, digest: str) -> Path:
        return self.root / "samples" / digest[:16]

    def exam_tasks(self, benchmark: str, key: str) -> Path:
        return self.root / "tasks" / f"{benchmark}-{key}.json"

    @property
    def judge(self) -> Path:
        return self.root / "judge"

    def answers(self, digest: str, benchmark: str, phase: str, draw: int) -> Path:
        return self.root / "answers" / digest[:16] / f"{benchmark}.{phase}-{draw}.jsonl"

    def verdict(self, checkpoint_id: str) -> Path:
        return self.root / "verdicts" / f"{checkpoint_id}.json"

    def outcome(self, stage: str, key: str) -> Path:
        return self.root / "outcomes" / f"{stage}-{key}.json"

    def cost(self, step: str) -> Path:
        return self.root / "costs" / f"{step}.json"

    def progress(self, step: str) -> Path:
        return self.root / "progress" / f"{step}.json"

    @property
    def tracking_id(self) -> Path:
        return self.root / "tracking_id"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlflow"

    def log(self, step: str) -> Path:
        return self.root / "logs" / f"{step}.log"

    def task_state(self, step: str) -> Path:
        return self.root / "logs" / f"{step}.state.json"

    def task_error(self, step: str) -> Path:
        return self.root / "logs" / f"{step}.error.json"

    @property
    def runner(self) -> Path:
        """What the local runner keeps: outputs of tasks, its cache, its log, its lock."""
        return self.root / "kfp"
