"""Which accepted checkpoints count, each on the benchmarks that it was accepted on.

The main line is held to everything. A side branch is held to what it teaches (`rule.held_benchmarks`): its
other scores were never judged, so it is no baseline there, no one to be held against, and no teacher. What
joins the main line is held against the main line, wherever its weights come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kascade.guard.lineage import (
    Ancestor,
    Outcome,
    accepted_ancestors,
    open_reference,
    own_outcomes,
    read_outcomes,
    same_model,
)
from kascade.guard.rule import held_benchmarks
from kascade.recipe.identity import find_stage
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted checkpoint, and the benchmarks that it was accepted on."""

    checkpoint: Ancestor
    held: frozenset[str]


def accepted_before(layout: RunFolder, recipe: Recipe, stage: str, parent: str) -> list[Accepted]:
    """What `stage`, which starts from `parent` (reference), is held against, oldest first.

    On the main line that is the base and everything that the main line had before, wherever the stage starts
    from; then the accepted ancestors of `parent`. For a side branch it is these ancestors alone.
    """
    line = accepted_ancestors(layout, parent)
    before = _main_line(layout, recipe, stage, line) if is_main(recipe, stage) else []
    return with_held(layout, recipe, [*line[:1], *before, *line[1:]])


def accepted_at_end(layout: RunFolder, recipe: Recipe, line: str) -> list[Accepted]:
    """Every accepted checkpoint of the run: those up to `line` (reference), then the side branches'."""
    found = accepted_ancestors(layout, line)
    names = tuple(part.name for part in recipe.stages)
    return with_held(layout, recipe, [*found, *_ends(layout, names, found)])


def fall_back(layout: RunFolder, recipe: Recipe, stage: str, parent: str) -> str:
    """Where the cascade goes on when `stage` is rolled back (reference): what the main line had before it.

    A stage of the main line starts there, unless it starts from a side branch, or from further back. A side
    branch goes back to its start.
    """
    if not is_main(recipe, stage):
        return parent
    line = accepted_ancestors(layout, parent)
    last = [*line[:1], *_main_line(layout, recipe, stage, line)][-1]
    return parent if last.digest == CheckpointRef.parse(parent).digest else last.reference


def outcomes_before(layout: RunFolder, recipe: Recipe, stage: str, parent: str) -> list[Outcome]:
    """Outcomes of what `stage` is held against: what these let pass is not its loss.

    What a side branch let pass is not among them for a stage of the main line: it is charged when it joins.
    """
    line = {one.checkpoint.digest for one in accepted_before(layout, recipe, stage, parent)}
    joins = is_main(recipe, stage)
    return [
        outcome
        for outcome in own_outcomes(layout).values()
        if outcome.accepted
        and CheckpointRef.parse(outcome.accepted).digest in line
        and not (joins and not is_main(recipe, outcome.stage))
    ]


def distinct(accepted: Iterable[Accepted], but: Ancestor) -> list[Accepted]:
    """Each model once, with all that it was accepted on, and none that is `but`."""
    found: list[Accepted] = []
    for one in accepted:
        if same_model(one.checkpoint, but):
            continue
        equal = [place for place, other in enumerate(found) if same_model(one.checkpoint, other.checkpoint)]
        if equal:
            found[equal[0]] = replace(found[equal[0]], held=found[equal[0]].held | one.held)
        else:
            found.append(one)
    return found


def is_main(recipe: Recipe, stage: str) -> bool:
    """Whether a stage is on the main line. One that the recipe does not know counts as such."""
    return not any(part.side_branch for part in recipe.stages if part.name == stage)


def with_held(layout: RunFolder, recipe: Recipe, found: Iterable[Ancestor]) -> list[Accepted]:
    """Each checkpoint once, with the benchmarks that it was accepted on; the base with all.

    A stage that was rolled back judged another checkpoint than the one it ends with, so it adds nothing.
    """
    everything = frozenset(benchmark.name for benchmark in recipe.benchmarks)
    outcomes = own_outcomes(layout).values() if layout.has_begun else read_outcomes(layout)
    held: dict[str, frozenset[str]] = {}
    for outcome in outcomes:
        if outcome.accepted and outcome.decision != "rolled_back":
            digest, stage = CheckpointRef.parse(outcome.accepted).digest, outcome.stage
            is_free = not is_main(recipe, stage)
            mine = held_benchmarks(recipe, find_stage(recipe, stage)) if is_free else everything
            held[digest] = held.get(digest, frozenset()) | mine
    once: dict[str, Ancestor] = {}
    for one in found:
        once.setdefault(one.digest, one)
    return [Accepted(one, held.get(one.digest, everything)) for one in once.values()]


def _main_line(layout: RunFolder, recipe: Recipe, stage: str, known: Iterable[Ancestor]) -> list[Ancestor]:
    """What the main line's stages before `stage` ended with, oldest first."""
    names = [part.name for part in recipe.stages]
    earlier = recipe.stages[: names.index(stage)] if stage in names else recipe.stages
    return _ends(layout, tuple(part.name for part in earlier if not part.side_branch), known)


def _ends(layout: RunFolder, stages: Iterable[str], known: Iterable[Ancestor]) -> list[Ancestor]:
    """The accepted checkpoint of each stage that has one. known: those that need not be opened again."""
    own, opened = own_outcomes(layout), {one.digest: one for one in known}
    ends = [own[stage].accepted for stage in stages if stage in own]
    return [
        opened.get(CheckpointRef.parse(reference).digest) or open_reference(reference)
        for reference in ends
        if reference
    ]
