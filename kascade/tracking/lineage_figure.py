"""The lineage of a run as a small graph: who was trained, or distilled, from whom, by digest."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.errors import KascadeError
from kascade.storage.checkpoint import CheckpointRef
from kascade.tracking.summary import AttemptSummary, RunSummary
from kascade.tracking.svg import element, figure, line, shorten, text, title

COLUMN, LANE, BOX, HEIGHT, TOP = 132.0, 66.0, 112.0, 48.0, 46.0
Place = tuple[float, float]


def lineage(summary: RunSummary) -> str:
    """Columns are the base and the stages, rows their attempts; solid: trained from, dashed: teacher."""
    places = _places(summary)
    columns = 1 + len(summary.stages)
    lanes = max([1, *(len(stage.attempts) for stage in summary.stages)])
    body = [text(8, 16, "base", class_="name")]
    for stage in summary.stages:
        label = f"{stage.number} · {shorten(stage.title, 15)}"
        body.append(text(8 + COLUMN * stage.number, 16, label, class_="name"))
    body += [edge for attempt in summary.current for edge in _edges(attempt, places)]
    accepted = {stage.accepted.digest for stage in summary.stages if stage.accepted}
    for attempt in summary.current:
        kept = attempt is summary.base or attempt.digest in accepted
        body.append(_box(attempt, places[attempt.digest], kept, attempt is summary.final))
    height = TOP + LANE * lanes
    return figure("Lineage of the checkpoints", 16 + COLUMN * columns, height, body)


def _places(summary: RunSummary) -> Mapping[str, Place]:
    places: dict[str, Place] = {summary.base.digest: (8.0, TOP)} if summary.base else {}
    for stage in summary.stages:
        for lane, attempt in enumerate(stage.attempts):
            places.setdefault(attempt.digest, (8 + COLUMN * stage.number, TOP + LANE * lane))
    return places


def _edges(attempt: AttemptSummary, places: Mapping[str, Place]) -> list[str]:
    end = places[attempt.digest]
    sources = [("edge", attempt.manifest.parent)]
    sources += [("edge teacher", teacher) for teacher in dict.fromkeys(attempt.manifest.teachers.values())]
    drawn = []
    for kind, reference in sources:
        start = places.get(_digest(reference))
        if start is not None and start != end:
            drawn.append(_edge(start, end, kind))
    return drawn


def _digest(reference: str | None) -> str:
    try:
        return CheckpointRef.parse(reference).digest if reference else ""
    except KascadeError:
        return ""


def _edge(start: Place, end: Place, kind: str) -> str:
    if start[0] == end[0]:
        x = start[0] + BOX / 2
        return line(x, min(start[1], end[1]) + HEIGHT, x, max(start[1], end[1]), kind)
    x1, y1, x2, y2 = start[0] + BOX, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    gutter, over = (5.0, TOP - 7) if kind == "edge" else (10.0, TOP - 13)
    if end[0] - start[0] > COLUMN:  # over the boxes between, which it has nothing to do with
        path = f"M{x1:.1f},{y1:.1f}h{gutter:.1f}V{over:.1f}H{x2 - gutter:.1f}V{y2:.1f}H{x2:.1f}"
    else:
        path = f"M{x1:.1f},{y1:.1f}h{gutter:.1f}V{y2:.1f}H{x2:.1f}"
    return element("path", d=path, class_=kind)


def _box(attempt: AttemptSummary, place: Place, kept: bool, final: bool) -> str:
    x, y = place
    state = "final" if final else "kept" if kept else "left"
    spoken = f"{attempt.id}, sha256 {attempt.digest}, {'accepted' if kept else 'not accepted'}"
    return element(
        "g",
        title(spoken),
        element("rect", x=x, y=y, width=BOX, height=HEIGHT, rx=7, class_=f"node {state}"),
        text(x + 9, y + 19, shorten(attempt.manifest.attempt, 14), class_="name"),
        text(x + 9, y + 36, attempt.digest[:12], class_="label mono"),
    )
