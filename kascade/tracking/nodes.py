"""The checkpoints of a run's folder as nodes: with scores, in groups a stage, accepted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from kascade.guard.lineage import Outcome, own_outcomes, read_outcomes
from kascade.guard.scores import Score, all_scores
from kascade.storage.checkpoint import CheckpointRef, Manifest
from kascade.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class CheckpointNode:
    """A checkpoint with its scores."""

    ref: CheckpointRef
    manifest: Manifest
    scores: tuple[Score, ...]

    @property
    def reference(self) -> str:
        return str(self.ref)

    @property
    def is_base(self) -> bool:
        return self.manifest.parent is None

    @property
    def time_ms(self) -> int:
        """When it was made, milliseconds since 1970."""
        return int(datetime.fromisoformat(self.manifest.created).timestamp() * 1000)


class RunNodes:
    """All complete checkpoints of a run by reference, oldest first, and the outcomes on them."""

    def __init__(self, layout: RunFolder) -> None:
        self.layout = layout
        self.folder = RunFolder.tolerant(layout.root)
        self.outcomes = read_outcomes(self.folder)
        scores: dict[str, list[Score]] = {}
        for score in all_scores(self.folder):
            scores.setdefault(score.checkpoint, []).append(score)
        self.by_reference = {
            str(ref): CheckpointNode(ref, manifest, tuple(scores.get(ref.digest, ())))
            for ref, manifest in self.folder.checkpoints()
        }

    @cached_property
    def accepted(self) -> frozenset[str]:
        """References that outcomes named as accepted, and the base's."""
        named = {outcome.accepted for outcome in self.outcomes if outcome.accepted}
        return frozenset(named | {node.reference for node in self.by_reference.values() if node.is_base})

    def own_outcomes(self) -> dict[str, Outcome]:
        """By stage: the folder may hold outcomes of an earlier recipe, too."""
        return own_outcomes(self.folder)

    def groups(self) -> list[list[CheckpointNode]]:
        """Per stage's training result: that checkpoint first, then the recoveries that came of it."""
        groups: dict[str, list[CheckpointNode]] = {}
        for node in self.by_reference.values():
            first = self._first_of_stage(node)
            groups.setdefault(first.reference, [first])
            if node is not first:
                groups[first.reference].append(node)
        return list(groups.values())

    def _first_of_stage(self, node: CheckpointNode) -> CheckpointNode:
        while node.manifest.parent is not None:
            above = self.by_reference.get(node.manifest.parent)
            if above is None or above.manifest.stage != node.manifest.stage:
                break
            node = above
        return node

    def outcomes_of(self, group: Sequence[CheckpointNode]) -> list[Outcome]:
        candidates = {node.reference for node in group}
        return [outcome for outcome in self.outcomes if outcome.candidate in candidates]

    def words(self, group: Sequence[CheckpointNode]) -> list[Path]:
        """Files of the verdicts and outcomes on these checkpoints."""
        verdicts = [self.layout.verdict(node.manifest.id) for node in group]
        outcomes = [self.layout.outcome(o.stage, o.file_key) for o in self.outcomes_of(group)]
        return [path for path in verdicts + outcomes if path.exists()]

    def measurements(self, group: Sequence[CheckpointNode]) -> list[Path]:
        """Files of the training curves and scores of these checkpoints."""
        curves = [self.layout.training(node.manifest.id).curves for node in group]
        scores = [path for node in group for path in self.layout.score_files(node.ref.digest)]
        return [path for path in curves + scores if path.exists()]
