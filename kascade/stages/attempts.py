"""What a stage makes, attempt by attempt. A result's name follows from all that it depends on, so whoever
knows the recipe and where the stage started finds its results again. No model is needed for that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kascade.environments import domain_of
from kascade.errors import Fault, KascadeError, UserError
from kascade.guard.lineage import Ancestor, accepted_of_stages, open_reference
from kascade.guard.teachers import best_teachers, teacher_candidates
from kascade.guard.verdict import read_verdict
from kascade.recipe.identity import find_stage, stage_key
from kascade.recipe.methods import method_of
from kascade.recipe.schema import DataSource, Recipe, StagePart
from kascade.run.attempts import attempts_of, verdicts_of
from kascade.run.context import Run, digest_of
from kascade.stages.tasks import borrowed_sources, recovery_sources, sources_by_domain
from kascade.storage.checkpoint import MANIFEST
from kascade.task import Domain

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One training of a stage. name: `train` or `recover-N`. start: reference of what it starts from.
    borrowed: tasks of later stages that a recovery trains on.
    """

    stage: str
    name: str
    start: str
    teachers: Mapping[Domain, Ancestor]
    borrowed: tuple[DataSource, ...] = ()

    def key(self, recipe: Recipe) -> str:
        """The hash of all that determines the result."""
        digests = {str(domain): teacher.digest for domain, teacher in self.teachers.items()}
        start = digest_of(self.start)
        return stage_key(recipe, self.stage, self.name, start, digests, borrowed=self.borrowed)

    def checkpoint_id(self, recipe: Recipe) -> str:
        """What the result is called."""
        return f"{self.stage}/{self.name}-{self.key(recipe)}"


@dataclass(frozen=True, slots=True)
class Loss:
    """What a stage's attempts lost and can be trained on, what they kept, and the tasks of each domain.

    borrowed: those of the lost domains that are of later stages.
    """

    lost: list[Domain]
    kept: list[Domain]
    sources: dict[Domain, list[DataSource]]
    borrowed: tuple[DataSource, ...]


def training(run: Run, stage: str, parent: str) -> Attempt:
    """The training of a stage from the accepted checkpoint `parent`."""
    part = find_stage(run.recipe, stage)
    teachers = stage_teachers(run, part, parent) if method_of(part).needs_teachers else {}
    return Attempt(stage, TRAIN, parent, teachers)


def recovery(run: Run, stage: str, round_: int, checkpoint: str, parent: str) -> Attempt:
    """Recovery `round_` of a regressed checkpoint: the best accepted checkpoint teaches every domain that the
    attempts lost; the stage's own result, the trained one before any recovery, teaches all the others.
    """
    attempts = attempts_of(checkpoint)
    loss = loss_of(run, stage, attempts)
    teachers = recovery_teachers(run, attempts[-1], parent, loss.lost, loss.kept)
    return Attempt(stage, f"recover-{round_}", checkpoint, teachers, loss.borrowed)


def tried(run: Run, stage: str, parent: str) -> list[str]:
    """What the stage has made of `parent` so far, oldest first: the trained checkpoint, then its recoveries.

    Found by key, so results of an earlier recipe in the same folder are passed over. A recovery follows only
    a checkpoint that was judged and regressed. Empty when nothing is trained.
    """
    found = run.existing(training(run, stage, parent).checkpoint_id(run.recipe))
    references: list[str] = []
    while found is not None:
        references.append(found)
        round_ = len(references)
        verdict = read_verdict(run.layout, open_reference(found).manifest.id)
        if verdict is None or not verdict.regressed or round_ > run.recipe.guard.recovery.rounds:
            break
        found = _recovered(run, stage, round_, found, parent)
    return references


def _recovered(run: Run, stage: str, round_: int, checkpoint: str, parent: str) -> str | None:
    """Recovery `round_` of `checkpoint`, if there is one.

    A side branch that was settled meanwhile may offer other teachers now than the recovery had. Then its
    manifest says which, and its key must follow from them.
    """
    attempt = recovery(run, stage, round_, checkpoint, parent)
    if found := run.existing(attempt.checkpoint_id(run.recipe)):
        return found
    others = run.layout.checkpoint(stage).glob(f"{attempt.name}-*/{MANIFEST}")
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        reference = run.existing(f"{stage}/{path.parent.name}")
        if reference and (made := open_reference(reference).manifest).parent == checkpoint:
            taught = {domain: open_reference(teacher) for domain, teacher in made.teachers.items()}
            if Attempt(stage, attempt.name, checkpoint, taught, attempt.borrowed).key(run.recipe) == made.key:
                return reference
    return None


def loss_of(run: Run, stage: str, attempts: list[Ancestor]) -> Loss:
    """What the attempts (newest first) lost, of what there are tasks to train on.

    Raises KascadeError when no verdict names a loss.
    """
    lost = list(dict.fromkeys(d for verdict in verdicts_of(run, attempts) for d in verdict.lost_domains))
    if not lost:
        raise KascadeError(f"{attempts[0].manifest.id} has not regressed: there is nothing to recover")
    return loss_in(run.recipe, stage_index(run, stage), lost)


def loss_in(recipe: Recipe, number: int, lost: Collection[Domain]) -> Loss:
    """A loss of these domains in stage `number`, from 0: of those that there are tasks to train on for."""
    sources = recovery_sources(recipe, number)
    guarded = sources_by_domain(recipe, ())
    kept = [domain for domain in sources if domain in guarded and domain not in lost]
    trainable = [domain for domain in lost if domain in sources]
    return Loss(trainable, kept, sources, borrowed_sources(recipe, number, trainable))


def can_recover(run: Run, stage: str, checkpoint: str) -> bool:
    """Whether there are tasks of a domain that the attempts up to the regressed `checkpoint` lost."""
    return bool(loss_of(run, stage, attempts_of(checkpoint)).lost)


def stage_index(run: Run, stage: str) -> int:
    """The stage's place in the recipe, from 0."""
    return run.recipe.stages.index(find_stage(run.recipe, stage))


def recovery_teachers(
    run: Run, own: Ancestor, parent: str, lost: Collection[Domain], kept: Collection[Domain]
) -> Mapping[Domain, Ancestor]:
    """Who teaches what in a recovery. own: the stage's trained checkpoint."""
    candidates = teacher_candidates(run.layout, run.recipe, own.manifest.stage, parent)
    best = best_teachers(run.layout, candidates)
    return {**{domain: best[domain].checkpoint for domain in lost}, **dict.fromkeys(kept, own)}


def stage_teachers(run: Run, part: StagePart, parent: str) -> dict[Domain, Ancestor]:
    """The teacher of each domain the stage trains on: as the recipe names it, else the best accepted one.

    Raises UserError naming all domains that have none.
    """
    best = best_teachers(run.layout, teacher_candidates(run.layout, run.recipe, part.name, parent))
    found: dict[Domain, Ancestor] = {}
    faults: list[Fault] = []
    for domain in dict.fromkeys(domain_of(mix.source) for mix in part.data):
        name = (part.teacher_names() or {}).get(domain, "best")
        named = accepted_of_stages(run.layout, (name,)) if name != "best" else []
        if named:
            found[domain] = named[0]
        elif name == "best" and domain in best:
            found[domain] = best[domain].checkpoint
        else:
            what = f"there is no accepted checkpoint of {name!r} to teach it"
            remedy = "add a benchmark of that domain, or name a stage under `teachers`"
            faults.append(Fault(f"stages.{part.name}.teachers.{domain}", what, remedy=remedy))
    if faults:
        raise UserError(faults)
    return found
