"""The lineage figure shows who was trained from whom."""

from __future__ import annotations

import re
from pathlib import Path

from kascade.tracking.lineage_figure import COLUMN, TOP, lineage
from kascade.tracking.summarise import summarise


def test_every_checkpoint_has_a_box(whole: Path) -> None:
    summary = summarise(whole)
    drawn = lineage(summary)
    assert drawn.count("<rect") == len(summary.current)
    assert all(attempt.digest in drawn for attempt in summary.current)


def test_stage_after_a_rollback_is_joined_to_its_parent_over_the_rejected_one(whole: Path) -> None:
    drawn = lineage(summarise(whole))
    paths = re.findall(r'd="M([\d.]+),[\d.]+h[\d.]+V([\d.]+)H([\d.]+)V[\d.]+H[\d.]+" class="edge"', drawn)
    assert len(paths) == 1
    start, height, end = map(float, paths[0])
    assert height < TOP
    assert end - start > COLUMN
