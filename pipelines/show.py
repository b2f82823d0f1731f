"""How a run looks in a terminal: a live table where there is one, a line a step where there is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.watch import Row, Watcher, label, owner

SYMBOLS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "earlier": ("✓", "dim"),
    "failed": ("✗", "red"),
}


class View(Protocol):
    """Shows a run while it goes on."""

    def __enter__(self) -> View: ...
    def __exit__(self, *error: object) -> None: ...
    def update(self) -> None: ...


def choose_view(console: Console, watcher: Watcher, *, quiet: bool) -> View:
    if quiet:
        return Silent()
    return LiveTable(console, watcher) if console.is_terminal else Lines(console, watcher)


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self) -> None:
        pass


@dataclass(slots=True)
class Lines:
    """A line for every finished step: for logs and pipes."""

    console: Console
    watcher: Watcher
    _told: set[str] = field(default_factory=set)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        self.update()

    def update(self) -> None:
        titles = self.watcher.titles()
        for state in self.watcher.states():
            step = state["step"]
            if state["seconds"] is None or step in self._told:
                continue
            self._told.add(step)
            parts = [titles.get(owner(step), owner(step)), label(step), f"{state['seconds']:.1f} s"]
            if state["state"] == "failed":
                parts.append("failed")
            elif step.endswith(".settle"):
                parts.append(self.watcher.outcomes().get(owner(step), ""))
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
        elapsed = time.time() - self.watcher.since
        self.live.update(render(self.watcher.rows(), self.watcher.recipe.name, elapsed), refresh=True)


def render(rows: Sequence[Row], name: str, elapsed_s: float) -> Table:
    """The table of a run; the running stage has a bar, its reward (or loss) and the time left."""
    table = Table.grid(padding=(0, 1))
    table.add_row("", Text(name, style="bold"), "", "", "", Text(clock(elapsed_s), style="bold"))
    for row in rows:
        symbol, style = SYMBOLS[row.mark]
        now = time.time() - row.started if row.started else 0.0
        spent = clock(row.seconds + now) if row.seconds + now else ""
        said = row.outcome or ("finished earlier" if row.mark == "earlier" else row.step)
        bar, metrics = _progress(row)
        table.add_row(Text(symbol, style=style), Text(row.title, style=style), said, bar, metrics, spent)
    return table


def _progress(row: Row) -> tuple[ProgressBar | str, str]:
    """The bar of the current step, and what is beside it."""
    progress = row.progress
    if progress is None:
        return "", ""
    parts = [f"{progress['done']}/{progress['total']} {progress['unit']}"]
    parts += [f"{name} {value:.3g}" for name, value in progress["metrics"].items()]
    if progress["eta_s"]:
        parts.append(f"{clock(progress['eta_s'])} left")
    return ProgressBar(total=progress["total"], completed=progress["done"], width=24), "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
