"""The race as a page, as a table in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kascade.lab.figure import race_figure
from kascade.lab.results import ArmSummary, RaceResult, SeedSpread
from kascade.lab.settings import ARM_WORDS
from kascade.storage.files import write_json, write_text
from kascade.tracking import report

COLUMNS = (
    "arm",
    "learning rate",
    "lost benchmarks",
    "kept benchmarks",
    "recovered after",
    "CPU s a step",
    "updates skipped",
)


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_pages(out: Path, race: RaceResult) -> None:
    """Write results.json, recovery.md and recovery.html, in place of those of an earlier race in `out`."""
    write_json(out / "results.json", race.model_dump(mode="json"))
    write_text(out / "recovery.md", markdown(race))
    write_text(out / "recovery.html", render(race))


def markdown(race: RaceResult) -> str:
    """What was raced and how it ended, as a Markdown section."""
    table = make_table(race)
    told = "\n\n".join([headline(race), *explanations(race)])
    return f"# Recovery of {race.stage}\n\n{told}\n\n{markdown_table(table)}"


def markdown_table(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def render(race: RaceResult) -> str:
    """The self-contained page. All text is escaped by the template; the figure escapes its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folders = [Path(__file__).parent, Path(report.__file__).parent]  # the report's style serves this page too
    templates = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("recovery.html.jinja").render(
        race=race,
        figure=Markup(race_figure(race)),
        table=make_table(race),
        headline=headline(race),
        explanations=explanations(race),
        arm_words=ARM_WORDS,
        parts={one.arm: one.part for one in race.results},
    )


def make_table(race: RaceResult) -> Table:
    return Table(COLUMNS, tuple(_row(race, arm) for arm in race.arms))


def headline(race: RaceResult) -> str:
    """Who ended highest, who recovered first in updates and in CPU seconds; ties name all."""
    end = max(arm.end.lost.mean for arm in race.arms)
    highest = _names([arm for arm in race.arms if arm.end.lost.mean == end])
    told = f"Highest on what was lost at the end: {highest}, {end:.3f} (teachers {race.teacher_level:.3f})."
    recovered = [arm for arm in race.arms if arm.recovered is not None]
    share = f"{race.recovered_share:.0%} of the loss"
    if not recovered:
        return f"{told} No arm won back {share}."
    by_step = _first(recovered, lambda arm: arm.recovered.step if arm.recovered else 0)
    by_cpu = _first(recovered, lambda arm: arm.recovered.cpu_s if arm.recovered else 0)
    return f"{told} First to win back {share}: {by_step} updates; {by_cpu} CPU seconds."


def explanations(race: RaceResult) -> list[str]:
    """How the numbers came about."""
    taught = ", ".join(f"{domain} by {_short(reference)}" for domain, reference in race.teachers.items())
    kept = f", and of the kept ones with weight {race.keep_weight:g}" if race.keep_weight else " only"
    stopped = [f"Stopped early: {why}" for arm in race.arms for why in arm.stopped]
    return [
        f"All arms start from {_short(race.checkpoint)}, which lost {', '.join(race.lost)}, and see the same "
        f"prompts in every step: of the lost domains{kept}. MOPD is taught: {taught}. Learning "
        "rates are the recipe's own for each method unless one was given; none was searched for here.",
        f"A score is the mean over benchmarks, {race.validation_tasks} validation tasks each, "
        f"{race.validation_samples} answers a task; in brackets lowest and highest seed. The start scores "
        f"{race.start_lost:.3f} on the lost benchmarks"
        + (f" and {race.start_kept:.3f} on the kept ones. " if race.start_kept is not None else ". ")
        + "CPU seconds are of training alone: sampling, grading, teachers and updates.",
        *stopped,
    ]


def _row(race: RaceResult, arm: ArmSummary) -> tuple[str, ...]:
    end, back = arm.end, arm.recovered
    return (
        ARM_WORDS[arm.arm],
        f"{arm.learning_rate:.3g}",
        f"{race.start_lost:.3f} → {_written(end.lost)}",
        f"{race.start_kept:.3f} → {_written(end.kept)}"
        if end.kept and race.start_kept is not None
        else "none",
        f"{back.step} updates, {back.cpu_s:.1f} CPU s" if back else f"not within {end.step} updates",
        f"{end.cpu_s / end.step:.2f}" if end.step else "none",
        f"{arm.updates_skipped:g}",
    )


def _written(spread: SeedSpread) -> str:
    return f"{spread.mean:.3f} [{spread.low:.3f}, {spread.high:.3f}]"


def _first(arms: Sequence[ArmSummary], value: Callable[[ArmSummary], float]) -> str:
    best = min(map(value, arms))
    return f"{_names([arm for arm in arms if value(arm) == best])} in {best:.3g}"


def _names(arms: Sequence[ArmSummary]) -> str:
    return " and ".join(ARM_WORDS[arm.arm] for arm in arms)


def _short(reference: str) -> str:
    """`stage/attempt-key` of a checkpoint reference."""
    return "/".join(reference.rpartition("@")[0].rsplit("/", 2)[-2:])
