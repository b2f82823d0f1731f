"""The race: several ways to win back what a stage lost, from the same checkpoint on the same prompts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from kascade.errors import TrainingStopped
from kascade.guard.lineage import Ancestor
from kascade.lab.arms import ArmPart, arm_parts
from kascade.lab.case import Regression, benchmarks_of, find_case
from kascade.lab.folder import prepare_folder
from kascade.lab.page import write_pages
from kascade.lab.results import ArmPoint, ArmResult, Levels, RaceResult, mean_score, summarise_arm
from kascade.lab.scoring import Exams, Recorder
from kascade.lab.settings import Arm, RaceSettings
from kascade.learning.metrics import read_metrics
from kascade.recipe.identity import data_digest, short_hash
from kascade.recipe.methods import method_of
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import StagePart
from kascade.rollout.policy import Policy
from kascade.rollout.pools import TaskPool
from kascade.run.context import Run
from kascade.stages.tasks import training_pool
from kascade.stages.teachers import load_teachers
from kascade.stages.training import Teachers, Training
from kascade.storage.files import write_record
from kascade.storage.progress import Progress
from kascade.storage.run_folder import RunFolder
from kascade.storage.training_folder import TrainingFolder
from kascade.task import Domain
from kascade.version import __version__

Announce = Callable[[str], None]
NAME = "recovery_lab"  # of the jobs: all arms draw alike
RESULTS = "arms"


def run_recovery_race(
    run: Path,
    out: Path,
    settings: RaceSettings,
    *,
    stage: str | None = None,
    announce: Announce = lambda line: None,
) -> RaceResult:
    """Race the arms from a regressed checkpoint of `run`; results.json, recovery.html and .md go to `out`.

    Arms and seeds whose results are in `out` already are not run again. Raises UserError when the run has
    no regression, an arm has no learning rate, or `out` holds other things.
    """
    layout = RunFolder(run)
    recipe = read_run_recipe(run)
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
    case: Regression
    settings: RaceSettings
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
        write_record(path, levels.model_dump_json(indent=1))
        return levels

    def _arm(self, arm: Arm, seed: int, levels: Levels) -> ArmResult:
        """One arm with one seed: found when finished, from its start when not."""
        part = self.parts[arm]
        name = f"{arm}-{seed}-{short_hash([self._basis(), self._part_basis(part)])}"
        path = self.out / RESULTS / f"{name}.json"
        if path.exists():
            self.announce(f"{arm}, seed {seed}: is there already")
            return ArmResult.model_validate_json(path.read_text(encoding="utf-8"))
        result = self._train(arm, seed, levels, TrainingFolder(self.out / "training" / name))
        write_record(path, result.model_dump_json(indent=1))
        end = result.points[-1]
        said = f"{arm}, seed {seed}: lost {mean_score(end.scores, self.lost):.3f} after {end.step} steps"
        self.announce(f"{said}, {end.cpu_s:.1f} CPU seconds")
        return result

    def _train(self, arm: Arm, seed: int, levels: Levels, folder: TrainingFolder) -> ArmResult:
        part, policy = self.parts[arm], self._policy()
        shutil.rmtree(folder.root, ignore_errors=True)  # of an interrupted try
        training: Training[StagePart] = Training(
            part, policy, self._pool(seed), NAME, seed, folder=folder, progress=self.run.progress
        )
        if method_of(part).needs_teachers:
            training.teachers = self.teachers
        names = (*self.lost, *self.kept)
        recorder = Recorder(
            lambda step: self.exams.score(policy, step, names),
            every=self.settings.score_every,
            steps=part.steps,
            points=[ArmPoint(step=0, cpu_s=0.0, scores=levels.start)],
        )
        training.after_step = recorder
        stopped = None
        try:
            method_of(part).load()(training)
        except TrainingStopped as error:
            stopped = str(error)
        folder.drop_states()
        return ArmResult(
            arm=arm,
            seed=seed,
            part=part.model_dump(mode="json"),
            points=tuple(recorder.points),
            updates_skipped=sum("note" in row for row in read_metrics(folder.curves)),
            stopped=stopped,
        )

    def _basis(self) -> dict[str, Any]:
        """What every score of the race depends on."""
        settings, exams = self.settings, self.run.recipe.benchmarks
        sources = [*(exam.source for exam in exams), *(s for own in self.case.sources.values() for s in own)]
        return {
            "code": __version__,
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
