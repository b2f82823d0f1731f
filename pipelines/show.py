"""How a run looks in a terminal: a live table where there is one, a line a step where there is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kascade.recipe.checks import BASE
from pipelines.outlook import done_share, time_left
from pipelines.watch import StageLine, Watcher, label, owner

BAR = 24  # characters
SYMBOLS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "earlier": ("✓", "dim"),
    "failed": ("✗", "red"),
}


class View(Protocol):
    """Shows a run while it continues."""

    def __enter__(self) -> View: ...
    def __exit__(self, *error: object) -> None: ...
    def update(self) -> None: ...


def choose_view(console: Console, watcher: Watcher, *, quiet: bool) -> View:
    if quiet:
        return Silent()
    return LiveTable(console, watcher) if console.is_terminal else LineView(console, watcher)


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self) -> None:
        pass


@dataclass(slots=True)
class LineView:
    """A line for every finished step: for logs and pipes."""

    console: Console
    watcher: Watcher
    _told: set[str] = field(default_factory=set)

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *error: object) -> None:
        self.update()

    def update(self) -> None:
        titles = self.watcher.titles()
        for state in self.watcher.shown():
            step = state["step"]
            if state["seconds"] is None or step in self._told:
                continue
            self._told.add(step)
            stage, seconds = titles.get(owner(step), owner(step)), f"{state['seconds']:.1f} s"
            # A step that is no stage's is its own title; the base model's only step is its benchmarks.
            alone = owner(step) in (BASE, step)
            parts = [stage, seconds] if alone else [stage, label(step), seconds]
            if state["state"] == "failed":
                parts.append("failed")
            elif step.endswith(".settle"):
                own = [one for one in self.watcher.shown() if owner(one["step"]) == owner(step)]
                idle = "not begun" if self.watcher.not_begun(owner(step), own) else ""
                parts.append(self.watcher.outcomes().get(owner(step), idle))
            self.console.print("  ".join(filter(None, parts)), markup=False, highlight=False)


class LiveTable:
    """The whole cascade, redrawn in place."""

    def __init__(self, console: Console, watcher: Watcher) -> None:
        self.watcher = watcher
        self.live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> LiveTable:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.update()
        self.live.stop()

    def update(self) -> None:
        rows = self.watcher.rows()
        self.live.update(render(rows, self.watcher.recipe.name, outlook(self.watcher, rows)), refresh=True)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a whole run stands. share: part of its work that is done. left_s: None while nothing says."""

    elapsed_s: float
    share: float = 0.0
    left_s: float | None = None


def outlook(watcher: Watcher, rows: Sequence[StageLine]) -> Outlook:
    """How far the run is, and how long it may still take."""
    elapsed, names = time.time() - watcher.since, list(watcher.titles())
    share = done_share(rows, watcher.recipe, names)
    earlier = [row if row.mark == "earlier" else replace(row, mark="waiting") for row in rows]
    left = time_left(share, done_share(earlier, watcher.recipe, names), elapsed)
    return Outlook(elapsed, share, left)


def render(rows: Sequence[StageLine], name: str, whole: Outlook) -> Table:
    """The table of a run, with how far it is; the running stage has a bar, its reward and its time left."""
    table = Table.grid(padding=(0, 1))
    left = f"about {clock(whole.left_s)} left" if whole.left_s is not None else ""
    whole_bar = ProgressBar(total=1.0, completed=whole.share, width=BAR)
    said = f"{whole.share:.0%} done"
    table.add_row(
        "", Text(name, style="bold"), said, whole_bar, left, Text(clock(whole.elapsed_s), style="bold")
    )
    for row in rows:
        symbol, style = SYMBOLS[row.mark]
        now = time.time() - row.started if row.started else 0.0
        spent = clock(row.seconds + now) if row.seconds + now else ""
        said = row.outcome or ("finished earlier" if row.mark == "earlier" else row.step)
        bar, metrics = _progress(row)
        table.add_row(Text(symbol, style=style), Text(row.title, style=style), said, bar, metrics, spent)
    return table


def _progress(row: StageLine) -> tuple[ProgressBar | str, str]:
    """The bar of the current step, and what is beside it."""
    progress = row.progress
    if progress is None:
        return "", ""
    parts = [f"{progress['done']}/{progress['total']} {progress['unit']}"]
    parts += [f"{name} {value:.3g}" for name, value in progress["metrics"].items()]
    if progress["eta_s"]:
        parts.append(f"{clock(progress['eta_s'])} left")
    return ProgressBar(total=progress["total"], completed=progress["done"], width=BAR), "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
