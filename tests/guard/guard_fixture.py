"""A small run folder, written through the real types: base, stages, scores, outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kascade.guard.lineage import Outcome, OutcomeDecision, write_outcome
from kascade.guard.ruling import judge, open_case
from kascade.guard.scores import Phase, Score, read_score, write_score
from kascade.guard.verdict import Verdict, write_verdict
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef, Manifest, open_checkpoint, publish
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

DOMAIN_OF: dict[str, Domain] = {"mcqa": "knowledge", "ifeval": "instruction_following", "arith": "math"}
LOW = {"mcqa": 0.4}
START = {"mcqa": 0.8, "ifeval": 0.4, "arith": 0.5}
ENVIRONMENT_OF = {"mcqa": "mcqa", "ifeval": "instruction_following", "arith": "math_with_judge"}


def recipe(**guard: object) -> Recipe:
    def stage(name: str, kind: str, environment: str, **more: object) -> dict[str, object]:
        data = [{"source": {"environment": environment}}]
        return {"name": name, "kind": kind, "data": data, "steps": 5, **more}

    return Recipe.model_validate(
        {
            "kascade": 1,
            "name": "fixture",
            "model": {"source": "builtin://tiny"},
            "stages": [
                stage("sft", "sft", "mcqa"),
                stage("if_rl", "if_rl", "instruction_following"),
                stage("math_rl", "multi_domain_rl", "math_with_judge"),
            ],
            "benchmarks": [
                {"name": name, "source": {"environment": environment}}
                for name, environment in ENVIRONMENT_OF.items()
            ],
            "guard": guard,
        }
    )


def with_side_branch(**guard: object) -> Recipe:
    """The recipe in which IF-RL is a side branch, and mathematics goes on from before it."""
    made = recipe(**guard)
    stages = [one.model_copy(update={"side_branch": one.name == "if_rl"}) for one in made.stages]
    return made.model_copy(update={"stages": stages})


def joined(**guard: object) -> Recipe:
    """The recipe in which IF-RL is a side branch, and mathematics starts from it on the main line."""
    made = with_side_branch(**guard)
    stages = [*made.stages[:2], made.stages[2].model_copy(update={"parent": "if_rl"})]
    return made.model_copy(update={"stages": stages})


@dataclass
class FixtureRun:
    """Adds checkpoints and draws their scores from given chances of success."""

    root: Path
    tasks: int = 400
    created: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def layout(self) -> RunFolder:
        return RunFolder(self.root)

    def checkpoint(
        self, stage: str, attempt: str, parent: str | None, key: str = "k", weights: str | None = None
    ) -> str:
        staged = self.root / "staged"
        staged.mkdir(parents=True)
        (staged / "weights.bin").write_text(weights or f"{stage} {attempt} {key}")
        manifest = Manifest(
            id=f"{stage}/{attempt}-{key}",
            stage=stage,
            attempt=attempt,
            key=key,
            parent=parent,
            fingerprint="f",
            code_version="0",
            created=self._time(),
            files={},
        )
        return str(publish(staged, self.layout.checkpoint(manifest.id), manifest))

    def _time(self) -> str:
        self.created += 1
        return f"2026-01-01T00:00:{self.created:02d}+00:00"

    def score(
        self, reference: str, chances: dict[str, float], phase: Phase = "screen", draw: int = 0
    ) -> None:
        for name, chance in chances.items():
            rewards = self.rng.random((self.tasks, 2 if phase == "screen" else 64)) < chance
            write_score(
                self.layout,
                Score(
                    benchmark=name,
                    domain=DOMAIN_OF[name],
                    checkpoint=CheckpointRef.parse(reference).digest,
                    phase=phase,
                    round=draw,
                    temperature=1.0,
                    rewards={f"t{i}": [float(r) for r in row] for i, row in enumerate(rewards)},
                    mean_response_tokens=20.0,
                    num_truncated=0,
                ),
            )

    def settle(
        self,
        decision: OutcomeDecision,
        candidate: str,
        parent: str,
        accepted: str | None,
        let_pass: tuple[str, ...] = (),
    ) -> None:
        _, manifest = open_checkpoint(CheckpointRef.parse(candidate).path)
        write_outcome(
            self.layout,
            Outcome(
                stage=manifest.stage,
                key=manifest.key,
                decision=decision,
                candidate=candidate,
                accepted=accepted,
                parent=parent,
                verdicts=(),
                let_pass=let_pass,
                let_pass_losses=dict.fromkeys(let_pass, 0.02),
                reasons=(),
                created=self._time(),
            ),
        )


def judged(
    run: FixtureRun, reference: str, parent: str, chances: dict[str, float], made: Recipe | None = None
) -> Verdict:
    """Screen, confirm what is suspicious on both sides, judge and write the verdict."""
    made = made or recipe()
    run.score(reference, chances)
    case = open_case(run.layout, made, reference, parent)
    for name, baseline in case.suspicious().items():
        run.score(reference, {name: chances[name]}, "confirm", case.draw(name))
        run.score(baseline.reference, {name: START[name]}, "confirm", case.draw(name))
        if low := case.known_lost.get(name):
            run.score(low.reference, {name: LOW[name]}, "confirm", case.draw(name))
    verdict = judge(open_case(run.layout, made, reference, parent))
    write_verdict(run.layout, verdict)
    return verdict


def start(run: FixtureRun) -> str:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.settle("accepted", sft, base, sft)
    run.score(base, dict.fromkeys(START, 0.1))
    run.score(sft, START)
    return sft


def answered(
    run: FixtureRun, reference: str, falls: dict[str, tuple[int, int]], phase: Phase = "end", draw: int = 0
) -> None:
    """Two equal answers to each of 100 tasks: per benchmark so many that were right are wrong, and the other
    way round."""
    run.tasks = 100
    run.score(reference, dict.fromkeys(falls, 1.0), phase, draw)
    for name, (fallen, risen) in falls.items():
        score = read_score(run.layout, CheckpointRef.parse(reference).digest, name, phase, draw)
        assert score is not None
        wrong = {*range(fallen), *range(10 + risen, 20), *range(20, 100, 2)}
        rewards = {f"t{i}": [float(i not in wrong)] * 2 for i in range(100)}
        write_score(run.layout, score.model_copy(update={"rewards": rewards}))
