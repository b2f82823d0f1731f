"""A run folder, written through the real types and judged by the real guard; only rewards are drawn."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kascade.guard.lineage import Outcome, OutcomeDecision, write_outcome
from kascade.guard.ruling import judge, open_case
from kascade.guard.scores import Phase, Score, write_score
from kascade.guard.settlement import recovered_shares
from kascade.guard.verdict import Verdict, write_verdict
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef, Manifest, point_to, publish
from kascade.storage.files import write_json, write_text
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

Skills = dict[str, float]

BENCHMARKS: dict[str, tuple[str, Domain]] = {
    "ifeval": ("instruction_following", "instruction_following"),
    "mcqa": ("mcqa", "knowledge"),
    "tools": ("workplace_assistant", "tool_use"),
    "json": ("structured_outputs", "structured_output"),
    "arithmetic": ("math_with_judge", "math"),
    "preference": ("genrm_compare", "chat"),
    "needle": ("lc_niah", "long_context"),
    "functions": ("code_gen", "code"),
    "repair": ("swerl_gen", "software_engineering"),
}
KINDS = {
    "sft": "sft",
    "if_rl": "if_rl",
    "multi_domain_rl": "multi_domain_rl",
    "distil": "mopd",
    "rlhf": "rlhf",
    "long_context_rl": "long_context_rl",
    "code_rl": "code_rl",
    "swe_rl": "swe_rl",
}
LEARNS = {
    "sft": tuple(BENCHMARKS),
    "if_rl": ("ifeval",),
    "multi_domain_rl": ("mcqa", "tools", "json"),
    "distil": ("ifeval", "mcqa", "tools", "json"),
    "rlhf": ("preference",),
    "long_context_rl": ("needle",),
    "code_rl": ("functions",),
    "swe_rl": ("repair",),
}
BASE: Skills = dict.fromkeys(BENCHMARKS, 0.08)
SFT: Skills = {"ifeval": 0.55, "mcqa": 0.5, "tools": 0.45, "json": 0.6, "arithmetic": 0.7, "preference": 0.5}
SFT |= {"needle": 0.55, "functions": 0.35, "repair": 0.4}


def recipe(stages: tuple[str, ...] = tuple(KINDS), unrecovered: str = "continue") -> Recipe:
    def source(name: str) -> dict[str, object]:
        return {"source": {"environment": BENCHMARKS[name][0]}}

    return Recipe.model_validate(
        {
            "kascade": 1,
            "name": "example",
            "description": "A cascade on the miniature",
            "model": {"source": "builtin://mini-nemotron-h"},
            "stages": [
                {"name": name, "kind": KINDS[name], "steps": 40, "data": [source(n) for n in LEARNS[name]]}
                for name in stages
            ],
            "benchmarks": [{"name": name, "greedy": True, **source(name)} for name in BENCHMARKS],
            "guard": {"unrecovered": unrecovered},
            "tracking": {"uri": "http://tracking.example"},
        }
    )


@dataclass
class ExampleRun:
    """Grows a run stage by stage. Skills are chances of success; each task keeps its own difficulty.

    store: where checkpoints are published, if not in the run's folder.
    """

    root: Path
    recipe: Recipe
    tasks: int = 120
    answer: str = "The answer is 4."
    store: str | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    clock: int = 0
    parent: str = ""
    skills: Skills = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layout = RunFolder(self.root)
        write_text(
            self.layout.recipe,
            "preset: quickstart\ntracking:\n  uri: http://someone:secret@tracking.example\n",
        )
        write_text(self.layout.resolved_recipe, self.recipe.model_dump_json(indent=1))

    def base(self, skills: Skills) -> None:
        self.parent = self.checkpoint("base", "train", None)
        self.skills = dict(skills)
        self.sit(self.parent, skills)

    def stage(
        self,
        name: str,
        change: Skills,
        *,
        recoveries: tuple[Skills, ...] = (),
        decision: OutcomeDecision | None = None,
    ) -> list[Verdict]:
        """Train, judge, recover as given, settle. change, recoveries: skills that differ from before."""
        candidate, verdicts, skills = self.parent, [], dict(self.skills)
        for number, moved in enumerate((change, *recoveries)):
            skills |= moved
            attempt = "train" if number == 0 else f"recover-{number}"
            candidate = self.checkpoint(name, attempt, candidate)
            self.curve(f"{name}/{attempt}-k", name)
            verdicts.append(self.judge(candidate, skills, number))
        found = decision or ("accepted" if len(verdicts) == 1 else "recovered")
        accepted = {"stopped": None, "rolled_back": self.parent}.get(found, candidate)
        self.settle(name, found, candidate, accepted, verdicts)
        if accepted == candidate:
            self.skills = skills
        self.parent = accepted or self.parent
        return verdicts

    def checkpoint(self, stage: str, attempt: str, parent: str | None) -> str:
        staged = self.root / "staged"
        write_text(staged / "weights.txt", f"{stage} {attempt}")
        manifest = Manifest(
            id=f"{stage}/{attempt}-k",
            stage=stage,
            attempt=attempt,
            key="k",
            parent=parent,
            teachers={"knowledge": self.parent} if attempt != "train" else {},
            fingerprint="f",
            code_version="0.1.0",
            created=self.now(),
            files={},
        )
        sections = {"sampling_s": 9.0, "training_s": 6.5, "grading_s": 1.0, "loading_s": 0.7}
        cost = {**sections, "wall_s": 18.1, "cpu_s": 33.0, "peak_memory_bytes": 1.1e9}
        write_json(self.layout.cost(f"train-{stage}-{attempt}"), cost)
        folder = self.layout.checkpoint(manifest.id)
        if self.store is None:
            return str(publish(staged, folder, manifest))
        ref = publish(staged, f"{self.store}/{manifest.id}", manifest)
        point_to(ref, folder)
        return str(ref)

    def judge(self, checkpoint: str, skills: Skills, number: int) -> Verdict:
        self.sit(checkpoint, skills)
        case = open_case(self.layout, self.recipe, checkpoint, self.parent)
        for name, baseline in case.suspicious().items():
            before = self.before[baseline.digest]
            self.score(baseline.digest, name, before[name], "confirm", number)
            self.score(case.candidate.digest, name, skills[name], "confirm", number)
            if low := case.known_lost.get(name):
                self.score(low.digest, name, self.before[low.digest][name], "confirm", number)
        verdict = judge(case)
        write_verdict(self.layout, verdict)
        return verdict

    @property
    def before(self) -> Mapping[str, Skills]:
        return self._sat

    def sit(self, reference: str, skills: Skills) -> None:
        digest = CheckpointRef.parse(reference).digest
        self._sat: dict[str, Skills] = {**getattr(self, "_sat", {}), digest: dict(skills)}
        for name, skill in skills.items():
            self.score(digest, name, skill, "screen", 0)

    def score(self, digest: str, name: str, skill: float, phase: Phase, draw: int) -> None:
        ease = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.2, self.tasks)
        chance = np.clip(skill + ease, 0.01, 0.99)[:, None]
        rewards = (self.rng.random((self.tasks, 2 if phase == "screen" else 64)) < chance).astype(float)
        graded = {f"{name}-{i}": [float(r) for r in row] for i, row in enumerate(rewards)}
        if name == "functions" and phase == "screen":
            graded[f"{name}-0"][0] = None  # type: ignore[call-overload]
        greedy = {task: float(value > 0.5) for task, value in zip(graded, chance[:, 0], strict=True)}
        score = Score(
            benchmark=name,
            domain=BENCHMARKS[name][1],
            checkpoint=digest,
            phase=phase,
            round=draw,
            temperature=1.0,
            rewards=graded,
            greedy=greedy if phase == "screen" else {},
            mean_response_tokens=22.0,
            num_truncated=1,
        )
        write_score(self.layout, score)
        if phase == "screen":
            self.samples(digest, score)

    def samples(self, digest: str, score: Score) -> None:
        rows = [
            {
                "task_id": task,
                "prompt": f"Question {task}: what is 2 + 2?",
                "answer": self.answer,
                "reward": drawn[0] or 0.0,
                "components": {},
                "error": "the sandbox was lost" if drawn[0] is None else None,
                "greedy": False,
            }
            for task, drawn in list(score.rewards.items())[:12]
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(self.layout.samples(digest, score.benchmark), lines)

    def curve(self, checkpoint_id: str, stage: str) -> None:
        lines = []
        for step in range(40):
            wobble = float(self.rng.normal(0, 0.03))
            row: dict[str, object] = {"step": step, "loss": 2.0 / (step + 2) + wobble}
            if stage != "sft":
                row |= {
                    "reward": 0.3 + step / 80 + wobble,
                    "response_tokens": 30 - step / 5,
                    "entropy": 1.2 - step / 60,
                }
                row |= {"logprob_gap": abs(wobble) * 1e-4}
            if step in (3, 17):
                row["note"] = "update skipped: 2 usable groups, 4 are needed"
            lines.append(json.dumps(row) + "\n")
        write_text(self.layout.training(checkpoint_id).curves, "".join(lines))

    def settle(
        self,
        stage: str,
        decision: OutcomeDecision,
        candidate: str,
        accepted: str | None,
        verdicts: list[Verdict],
    ) -> None:
        write_outcome(
            self.layout,
            Outcome(
                stage=stage,
                key="k",
                decision=decision,
                candidate=candidate,
                accepted=accepted,
                parent=self.parent,
                verdicts=tuple(verdict.id for verdict in verdicts),
                recovered=recovered_shares(verdicts[-1]),
                reasons=(f"decided: {decision}",),
                created=self.now(),
            ),
        )

    def now(self) -> str:
        self.clock += 1
        return f"2026-01-01T{self.clock // 60:02d}:{self.clock % 60:02d}:00+00:00"


def whole_run(root: Path, **options: object) -> ExampleRun:
    """Eight stages: a regression that is recovered, one that stays, and one rolled back."""
    run = ExampleRun(root, recipe(), **options)  # type: ignore[arg-type]
    run.base(BASE)
    run.stage("sft", SFT)
    run.stage("if_rl", {"ifeval": 0.9})
    run.stage(
        "multi_domain_rl",
        {"mcqa": 0.8, "tools": 0.75, "json": 0.85, "ifeval": 0.45},
        recoveries=({"ifeval": 0.9},),
    )
    run.stage("distil", {"mcqa": 0.83})
    run.stage(
        "rlhf",
        {"preference": 0.85, "needle": 0.2},
        recoveries=({"needle": 0.3}, {"needle": 0.33}),
        decision="continued",
    )
    run.stage("long_context_rl", {"needle": 0.8})
    run.stage("code_rl", {"functions": 0.7, "arithmetic": 0.4}, recoveries=({}, {}), decision="rolled_back")
    run.stage("swe_rl", {"repair": 0.75})
    return run


def short_run(root: Path, **options: object) -> ExampleRun:
    """Two stages of three: a regression that is recovered, and a stage that has not begun."""
    run = ExampleRun(root, recipe(("sft", "if_rl", "rlhf")), tasks=60, **options)  # type: ignore[arg-type]
    run.base(BASE)
    run.stage("sft", SFT)
    run.stage("if_rl", {"ifeval": 0.95, "mcqa": 0.1}, recoveries=({"mcqa": 0.5},))
    return run
