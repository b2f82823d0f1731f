"""The race: several ways to win back what a stage lost, from the same checkpoint on the same prompts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import kascade
from kascade.environments.base import Domain
from kascade.errors import TrainingStopped
from kascade.guard.lineage import Ancestor
from kascade.learning.metrics import read_metrics
from kascade.recipe.identity import data_digest, short_hash
from kascade.recipe.schema import MOPDStage, read_resolved
from kascade.rollout.pools import TaskPool
from kascade.stages.context import Run
from kascade.stages.job import Job, Policy
from kascade.stages.lab.arms import ArmPart, arm_parts, train_arm
from kascade.stages.lab.case import Case, benchmarks_of, find_case
from kascade.stages.lab.folder import prepare_folder
from kascade.stages.lab.page import write_pages
from kascade.stages.lab.results import ArmResult, Levels, Point, RaceResult, mean_score, summarise_arm
from kascade.stages.lab.scoring import Exams, Recorder
from kascade.stages.lab.settings import Arm, Settings
from kascade.stages.mopd import Teachers
from kascade.stages.tasks import training_pool
from kascade.stages.train import load_teachers
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout
from kascade.storage.progress import Progress

Announce = Callable[[str], None]
NAME = "recovery_lab"  # of the jobs: all arms draw alike
RESULTS = "arms"


def run_recovery_race(
    run: Path,
    out: Path,
    settings: Settings,
    *,
    stage: str | None = None,
    announce: Announce = lambda line: None,
) -> RaceResult:
    """Race the arms from a regressed checkpoint of `run`; results.json, recovery.html and .md go to `out`.

    Arms and seeds whose results lie in `out` already are not run again. Raises UserError when the run has
    no regression, an arm has no learning rate, or `out` holds other things.
    """
    layout = RunLayout(run)
    recipe = read_resolved(layout.resolved_recipe)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    opened = Run(layout, recipe, NAME, Progress(out / "progress.json", NAME))
    found = find_case(opened, stage)
    race = Race(opened, found, settings, out, arm_parts(opened, found, settings), announce)
    prepare_folder(out, out / RESULTS, "recovery")
    result = race.run_all()
    write_pages(out, result)
    return result


@dataclass
class Race:
    run: Run
    case: Case
    settings: Settings
    out: Path
    parts: dict[Arm, ArmPart]
    announce: Announce
    pools: dict[int, TaskPool] = field(default_factory=dict)

    def run_all(self) -> RaceResult:
        """Every arm with every seed, seeds outermost so that what is there early is fair to all."""
        levels = self._levels()
        results = [self._arm(arm, seed, levels) for seed in self.settings.seeds for arm in self.parts]
        lost, kept = self.lost, self.kept
        start, teachers = mean_score(levels.start, lost), mean_score(levels.teachers, lost)
        enough = start + self.settings.recovered_share * (teachers - start)
        arms = [[one for one in results if one.arm == arm] for arm in self.parts]
        return RaceResult(
            run=str(self.run.layout.root),
            stage=self.case.stage,
            checkpoint=self.case.checkpoint.reference,
            lost_domains=self.case.lost,
            teachers={domain: self.case.teachers[domain].reference for domain in self.case.lost},
            lost=lost,
            kept=kept,
            start_lost=start,
            start_kept=mean_score(levels.start, kept) if kept else None,
            teacher_level=teachers,
            recovered_share=self.settings.recovered_share,
            keep_weight=self.settings.keep_weight,
            validation_tasks=self.settings.validation_tasks,
            validation_samples=self.settings.validation_samples,
            arms=tuple(summarise_arm(found, lost, kept, enough) for found in arms),
            results=tuple(results),
        )

    @cached_property
    def lost(self) -> tuple[str, ...]:
        return tuple(one.name for one in benchmarks_of(self.run, self.case.lost))

    @cached_property
    def kept(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.run.recipe.benchmarks if one.name not in self.lost)

    @cached_property
    def exams(self) -> Exams:
        return Exams.of(self.run.recipe.benchmarks, self.settings, self.run.recipe.seed)

    @cached_property
    def checkpoint_folder(self) -> Path:
        return self.run.open_verified(self.case.checkpoint.reference)

    @cached_property
    def taught(self) -> dict[Domain, Ancestor]:
        """Who teaches each domain that the prompts are of."""
        domains = self.case.lost if self.settings.keep_weight == 0 else (*self.case.lost, *self.case.kept)
        return {domain: self.case.teachers[domain] for domain in domains}

    @cached_property
    def teachers(self) -> Teachers:
        return load_teachers(self.run, self.taught)

    def _pool(self, seed: int) -> TaskPool:
        """The prompts of a seed, the same for every arm."""
        if seed not in self.pools:
            data = next(iter(self.parts.values())).data
            self.pools[seed] = training_pool(data, seed, NAME)
        return self.pools[seed]

    def _policy(self) -> Policy:
        return Policy.load(self.checkpoint_folder, self.run.recipe.model)

    def _levels(self) -> Levels:
        """Where the race starts and where the teachers stand, measured once."""
        path = self.out / f"levels-{short_hash(self._basis())}.json"
        if path.exists():
            return Levels.model_validate_json(path.read_text(encoding="utf-8"))
        policy = self._policy()
        teachers: dict[str, float] = {}
        for domain in self.case.lost:
            taught = Policy.around(self.teachers[domain], policy.tokenizer, policy.chat)
            names = tuple(one.name for one in benchmarks_of(self.run, (domain,)))
            teachers |= self.exams.score(taught, 0, names)
        levels = Levels(start=self.exams.score(policy, 0, (*self.lost, *self.kept)), teachers=teachers)
        write_text(path, levels.model_dump_json(indent=1) + "\n")
        return levels

    def _arm(self, arm: Arm, seed: int, levels: Levels) -> ArmResult:
        """One arm with one seed: found when finished, from its start when not."""
        part = self.parts[arm]
        name = f"{arm}-{seed}-{short_hash([self._basis(), self._part_basis(part)])}"
        path = self.out / RESULTS / f"{name}.json"
        if path.exists():
            self.announce(f"{arm}, seed {seed}: is there already")
            return ArmResult.model_validate_json(path.read_text(encoding="utf-8"))
        result = self._train(arm, seed, levels, self.out / "training" / name)
        write_text(path, result.model_dump_json(indent=1) + "\n")
        end = result.points[-1]
        said = f"{arm}, seed {seed}: lost {mean_score(end.scores, self.lost):.3f} after {end.step} steps"
        self.announce(f"{said}, {end.cpu_s:.1f} CPU seconds")
        return result

    def _train(self, arm: Arm, seed: int, levels: Levels, training: Path) -> ArmResult:
        part, policy, tasks = self.parts[arm], self._policy(), self._pool(seed)
        teachers = self.teachers if isinstance(part, MOPDStage) else {}
        shutil.rmtree(training, ignore_errors=True)  # of an interrupted try
        job = Job(NAME, seed, training=training, progress=self.run.progress)
        names = (*self.lost, *self.kept)
        recorder = Recorder(
            lambda step: self.exams.score(policy, step, names),
            every=self.settings.score_every,
            steps=part.steps,
            points=[Point(step=0, cpu_s=0.0, scores=levels.start)],
        )
        job.after_step = recorder
        stopped = None
        try:
            train_arm(part, policy, tasks, job, teachers)
        except TrainingStopped as error:
            stopped = str(error)
        shutil.rmtree(training / "state", ignore_errors=True)
        return ArmResult(
            arm=arm,
            seed=seed,
            part=part.model_dump(mode="json"),
            points=tuple(recorder.points),
            updates_skipped=sum("note" in row for row in read_metrics(training / "metrics.jsonl")),
            stopped=stopped,
        )

    def _basis(self) -> dict[str, Any]:
        """What every score of the race depends on."""
        settings, exams = self.settings, self.run.recipe.benchmarks
        sources = [*(exam.source for exam in exams), *(s for own in self.case.sources.values() for s in own)]
        return {
            "code": kascade.__version__,
            "checkpoint": self.case.checkpoint.digest,
            "teachers": {domain: teacher.digest for domain, teacher in self.taught.items()},
            "chat_template": self.run.recipe.model.chat_template,
            "seed": self.run.recipe.seed,
            "benchmarks": [exam.model_dump(mode="json") for exam in exams],
            "validation": [settings.validation_tasks, settings.validation_samples],
            "files": [data_digest(source.path) for source in sources if source.path is not None],
        }

    def _part_basis(self, part: ArmPart) -> dict[str, Any]:
        return {"part": part.model_dump(mode="json"), "score_every": self.settings.score_every}
