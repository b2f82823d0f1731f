"""Where everything of one run is, under the run's folder. Nothing else knows a path by heart.

    recipe.yaml              as the user wrote it         recipe.resolved.json   completed and checked
    pipeline.yaml            what runs                    report.html, model_card.md
    preflight.json           what the checks before the first stage measured
    identity.json            what the recipe's own results are known by: base checkpoint, fingerprints
    final.json               which checkpoint the cascade ended with
    retained.json, waiting.json     what the end check ended with; what the run waits for before its end
    approvals/NAME-DIGEST.json             what a person was asked before stage NAME or promotion, and said
    checkpoints/ID/          weights, tokenizer, config, manifest.json (written last)
    training/ID/             metrics.jsonl (the curves), state/ (what resume needs), measurements of a start,
                             weights/ (versions on their way to samplers of other processes)
    scores/DIGEST/NAME.PHASE-ROUND.json    one benchmark on one checkpoint, kept per task
    samples/DIGEST/NAME.jsonl              some answers with their rewards
    answers/DIGEST/NAME.PHASE-ROUND.jsonl  every answer to a benchmark with its grade, task by task
    tasks/NAME-KEY.json      the generated tasks of a benchmark
    judge/                   what a judge was asked and said: transcript.jsonl, cache/
    verdicts/ID.json         the guard's verdict on checkpoint ID
    retention/DIGEST.json    the end check of checkpoint DIGEST: is all still there that was once best
    challenges/DIGEST-DIGEST.json          a challenger against the champion of its time
    promotion.json           what became of the promotion: who is champion, and why
    notices/EVENT-KEY.json   who was told what, and whether it arrived
    retrain.json             whether a run that is started again and again trains, and why
    outcomes/STAGE-KEY-FINGERPRINT.json    what the stage ended with: the accepted checkpoint and why
    costs/STEP.json          wall, CPU, memory and time by kind of work
    progress/STEP.json       how far a step is
    logs/STEP.log, .state.json, .error.json      what a step wrote, how it stands, its own error
    logs/STEP.state.result.json                  the checkpoint that a job of several nodes made
    damaged/                 what a later run found damaged and made again
    kfp/                     outputs, lock and result of the local runner
    tracking_id              what MLflow knows this run by
    mlflow.db, mlflow/       its database and artifacts, where no server is named

ID is `<stage>/<attempt>-<key>`: attempt is `train`, `recover-1` or `recover-2`, and key a short
hash of all that determines the result, so a changed recipe never overwrites an earlier result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kascade.storage.training_folder import TrainingFolder

ERROR = ".error.json"
HALF_WRITTEN = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # .NAME.XXXXXXXX, beside NAME


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Paths of a run that is in a local folder. `RunFolder` reads and writes what is there."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def resolved_recipe(self) -> Path:
        return self.root / "recipe.resolved.json"

    @property
    def has_begun(self) -> bool:
        """Whether this is the folder of a run at all."""
        return self.resolved_recipe.is_file()

    @property
    def has_only_begun(self) -> bool:
        """Whether nothing is here but what a run makes before it writes its recipe: its lock."""
        mine = {self._runner, *self._half_written_here()}
        return self.runner_lock.is_file() and mine.issuperset(self.root.iterdir())

    @property
    def pipeline(self) -> Path:
        return self.root / "pipeline.yaml"

    @property
    def preflight(self) -> Path:
        return self.root / "preflight.json"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def final(self) -> Path:
        return self.root / "final.json"

    @property
    def retained(self) -> Path:
        return self.root / "retained.json"

    @property
    def waiting(self) -> Path:
        return self.root / "waiting.json"

    @property
    def approvals(self) -> Path:
        return self.root / "approvals"

    @property
    def model_card(self) -> Path:
        return self.root / "model_card.md"

    def checkpoint(self, checkpoint_id: str) -> Path:
        return self._checkpoints / checkpoint_id

    @property
    def _checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def training(self, checkpoint_id: str) -> TrainingFolder:
        return TrainingFolder(self.root / "training" / checkpoint_id)

    @property
    def all_scores(self) -> Path:
        return self.root / "scores"

    def score(self, digest: str, benchmark: str, phase: str, round: int) -> Path:
        return self.all_scores / digest[:16] / f"{benchmark}.{phase}-{round}.json"

    def score_files(
        self, digest: str | None = None, benchmark: str = "*", phase: str = "*", round: int | str = "*"
    ) -> list[Path]:
        """The scores on disk in order of their paths; what is not named may be anything."""
        pattern = f"{digest[:16] if digest else '*'}/{benchmark}.{phase}-{round}.json"
        return sorted(self.all_scores.glob(pattern))

    def samples(self, digest: str, benchmark: str) -> Path:
        return self.root / "samples" / digest[:16] / f"{benchmark}.jsonl"

    def exam_tasks(self, benchmark: str, key: str) -> Path:
        return self.root / "tasks" / f"{benchmark}-{key}.json"

    @property
    def judge(self) -> Path:
        return self.root / "judge"

    def answers(self, digest: str, benchmark: str, phase: str, round: int) -> Path:
        return self.root / "answers" / digest[:16] / f"{benchmark}.{phase}-{round}.jsonl"

    def verdict(self, checkpoint_id: str) -> Path:
        return self.root / "verdicts" / f"{checkpoint_id}.json"

    def end_verdict(self, digest: str) -> Path:
        return self.root / "retention" / f"{digest[:16]}.json"

    def challenge(self, challenger: str, champion: str) -> Path:
        """Of two digests."""
        return self.root / "challenges" / f"{challenger[:16]}-{champion[:16]}.json"

    def challenge_files(self) -> list[Path]:
        return sorted((self.root / "challenges").glob("*.json"))

    @property
    def promotion(self) -> Path:
        return self.root / "promotion.json"

    @property
    def retrain(self) -> Path:
        return self.root / "retrain.json"

    def notice(self, event: str, mark: str) -> Path:
        return self.root / "notices" / f"{event}-{mark}.json"

    def notice_files(self) -> list[Path]:
        return sorted((self.root / "notices").glob("*.json"))

    def verdict_files(self) -> list[Path]:
        return sorted((self.root / "verdicts").rglob("*.json"))

    def outcome(self, stage: str, key: str) -> Path:
        return self.root / "outcomes" / f"{stage}-{key}.json"

    def outcome_files(self) -> list[Path]:
        return sorted((self.root / "outcomes").glob("*.json"))

    def cost(self, step: str) -> Path:
        return self.root / "costs" / f"{step}.json"

    def cost_files(self) -> list[Path]:
        return sorted((self.root / "costs").glob("*.json"))

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

    @property
    def _logs(self) -> Path:
        return self.root / "logs"

    def log(self, step: str) -> Path:
        return self._logs / f"{step}.log"

    def step_state(self, step: str) -> Path:
        return self._logs / f"{step}.state.json"

    def step_error(self, step: str) -> Path:
        return self._logs / f"{step}{ERROR}"

    def state_files(self) -> list[Path]:
        return sorted(self._logs.glob("*.state.json"))

    def error_files(self) -> dict[str, Path]:
        """The errors on disk, by step."""
        return {path.name.removesuffix(ERROR): path for path in sorted(self._logs.glob(f"*{ERROR}"))}

    def job_result(self, step: str) -> Path:
        return self._logs / f"{step}.state.result.json"

    @property
    def _runner(self) -> Path:
        """What the local runner keeps."""
        return self.root / "kfp"

    @property
    def damaged(self) -> Path:
        return self.root / "damaged"

    @property
    def stamps(self) -> Path:
        return self._runner / "checked.json"

    @property
    def scratch(self) -> Path:
        """Names the folder of temporary files of the local runner's last run."""
        return self._runner / "scratch"

    @property
    def runner_lock(self) -> Path:
        return self._runner / "lock"

    @property
    def runner_outputs(self) -> Path:
        return self._runner / "outputs"

    @property
    def runner_result(self) -> Path:
        return self._runner / "result.json"

    # what a look at the whole folder goes through

    def checkpoint_folders(self) -> list[Path]:
        """Every checkpoint's folder, also of those that were being written (their names begin with a dot)."""
        return sorted(path for path in self._checkpoints.glob("*/*") if path.is_dir())

    def answer_files(self) -> list[Path]:
        return sorted((self.root / "answers").rglob("*.jsonl"))

    def curve_files(self) -> list[Path]:
        return sorted((self.root / "training").rglob("metrics.jsonl"))

    def note_files(self) -> list[Path]:
        """JSON that is read as it is: costs, progress, tasks, measurements of a start, states of steps."""
        names = ("approvals", "costs", "notices", "progress", "tasks", "training", "logs")
        found = (path for name in names for path in (self.root / name).rglob("*.json"))
        depth = len(self.root.parts)
        mine = (path for path in found if "state" not in path.parts[depth:])  # states say so themselves
        return sorted(
            [*mine, self.preflight, self.final, self.retained, self.waiting, self.promotion, self.retrain]
        )

    def half_written(self) -> list[Path]:
        """Small files whose writing was cut: named .NAME.XXXXXXXX, beside NAME."""
        folders = (path for path in self.root.iterdir() if path.is_dir() and path != self._checkpoints)
        found = (path for folder in folders for path in folder.rglob(".*") if path.is_file())
        cut = [path for path in found if HALF_WRITTEN.fullmatch(path.name)]
        return sorted([*cut, *self._half_written_here()])

    def _half_written_here(self) -> list[Path]:
        """Those in the run's folder itself, only of names that a run writes: people keep files there, too."""
        begun = (self.recipe, self.resolved_recipe, self.pipeline, self.preflight, self.identity)
        ended = (self.final, self.retained, self.waiting, self.promotion, self.retrain)
        pages = (self.report, self.model_card, self.tracking_id)
        found = (path for own in (*begun, *ended, *pages) for path in self.root.glob(f".{own.name}.*"))
        return [path for path in found if HALF_WRITTEN.fullmatch(path.name)]

    def newest(self, paths: Iterable[Path]) -> float:
        """When the youngest of these files was written, in seconds since 1970; 0 without any."""
        return max((path.stat().st_mtime for path in paths), default=0.0)
