"""What the terminal shows, from files of a run half done."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from toy_recipe import toy_recipe

from kascade.guard.lineage import Outcome, write_outcome
from kascade.storage.files import write_json
from kascade.storage.progress import Progress
from kascade.storage.run_folder import RunFolder
from pipelines.show import LineView, Outlook, clock, outlook, render
from pipelines.watch import Watcher, label

RECIPE = toy_recipe({"name": "a"}, {"name": "b"}, {"name": "c"})
SETTLED = Outcome(
    stage="a",
    key="key",
    decision="rolled_back",
    candidate="c",
    accepted="p",
    parent="p",
    verdicts=(),
    reasons=(),
    created="1970-01-01T00:00:10+00:00",
)


def state(layout: RunFolder, step: str, started: float, how: str = "succeeded") -> None:
    seconds = None if how == "running" else 2.0
    write_json(layout.step_state(step), {"step": step, "state": how, "started": started, "seconds": seconds})


@pytest.fixture
def half_done(tmp_path: Path) -> Watcher:
    """Stage a was settled by an earlier run and found again, b recovers now, c is still to come."""
    layout = RunFolder(tmp_path)
    state(layout, "c.settle", 60)  # of an earlier recipe
    write_outcome(layout, SETTLED)
    done = ["preflight", "base.train.evaluate", "a.train", "a.settle", "b.train", "b.train.evaluate"]
    for index, step in enumerate([*done, "b.begin"]):
        state(layout, step, 100 + index)
    state(layout, "b.recover-1", 110, "running")
    Progress(layout.progress("b.recover-1"), "b.recover-1").update(3, 8, reward=0.625)
    return Watcher(layout, RECIPE, since=100)


def test_rows_tell_what_is_done_running_and_waiting(half_done: Watcher) -> None:
    rows = {row.title: row for row in half_done.rows()}
    marks = [(title, row.mark) for title, row in rows.items()]
    assert marks == [
        ("Preflight", "done"),
        ("Benchmarks of the base model", "done"),
        ("1 · SFT", "earlier"),
        ("2 · SFT", "running"),
        ("3 · SFT", "waiting"),
        ("End check", "waiting"),
        ("Report", "waiting"),
    ]
    assert rows["1 · SFT"].outcome == "rolled back"
    running = rows["2 · SFT"]
    assert (running.step, running.seconds, running.started) == ("recovery 1: training", 4.0, 110)
    assert running.progress is not None and running.progress["done"] == 3


def test_progress_of_an_earlier_attempt_is_not_shown(half_done: Watcher) -> None:
    path = half_done.layout.progress("b.recover-1")
    os.utime(path, (90, 90))
    assert next(row for row in half_done.rows() if row.mark == "running").progress is None


def test_the_table_shows_bar_reward_and_time(half_done: Watcher) -> None:
    console = Console(width=140, record=True, file=StringIO())
    console.print(render(half_done.rows(), "toy", Outlook(75, share=0.4, left_s=113)))
    text = console.export_text()
    for words in (
        "1:15",
        "40% done",
        "about 1:53 left",
        "3/8 steps",
        "reward 0.625",
        "left",
        "recovery 1: training",
        "rolled back",
    ):
        assert words in text


def test_the_share_of_the_whole_run_grows_with_what_is_done_and_ends_at_one(half_done: Watcher) -> None:
    before = outlook(half_done, half_done.rows())
    assert 0 < before.share < 1
    assert before.left_s is not None
    state(half_done.layout, "b.settle", 130)
    after = outlook(half_done, half_done.rows())
    assert after.share > before.share
    for index, step in enumerate(("c.train", "c.settle")):
        state(half_done.layout, step, 140 + index)
    assert outlook(half_done, half_done.rows()).share == pytest.approx(1.0)


def test_lines_tell_each_step_once(half_done: Watcher) -> None:
    console = Console(width=100, record=True, file=StringIO())
    with LineView(console, half_done) as lines:
        lines.update()
        state(half_done.layout, "b.recover-1", 110, "failed")
    text = console.export_text()
    assert text.count("2 · SFT  training  2.0 s") == 1
    assert "2 · SFT  recovery 1: training  2.0 s  failed" in text


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("preflight", "preflight"),
        ("sft.train", "training"),
        ("sft.train.evaluate", "benchmarks"),
        ("sft.recover-2", "recovery 2: training"),
        ("sft.recover-2.evaluate", "recovery 2: benchmarks"),
        ("sft.settle", "settling"),
    ],
)
def test_labels(step: str, words: str) -> None:
    assert label(step) == words


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.9, "1:05"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
