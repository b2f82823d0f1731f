"""Per-sample results of other tools: lm-eval, Inspect, NeMo Evaluator, and plain JSON lines."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kascade.errors import Fault, UserError
from kascade.results.model import Answer

# What lm-eval calls a metric of one sample, the usual ones first.
METRICS = ("exact_match", "acc", "pass@1", "prompt_level_strict_acc", "f1", "em")
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # Inspect's letters: correct, partial, incorrect, no answer


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file. Raises UserError for a line that holds none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise UserError(Fault(f"{path}:{number}", "is not a JSON object", "one object per line"))
            yield number, found


def lm_eval(path: Path, metric: str | None) -> Iterator[Answer]:
    """`samples_TASK_DATE.jsonl` of lm-eval's `--log_samples`. One benchmark per task, and per filter."""
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    rows = [(f"{path}:{number}", row) for number, row in json_lines(path)]
    filters = {row.get("filter") for _, row in rows}
    for where, row in rows:
        name = task if len(filters) == 1 else f"{task}/{row.get('filter')}"
        yield lm_eval_answer(name, row, metric, where)


def lm_eval_answer(benchmark: str, row: Mapping[str, Any], metric: str | None, where: str) -> Answer:
    """One sample of lm-eval's own. Raises UserError where it has no such metric."""
    said = row.get("filtered_resps") or row.get("resps")
    return Answer(
        benchmark,
        f"{row.get('doc_id')}:{row.get('doc_hash', '')}"[:80],
        0,
        _number(row[_metric(row, metric, where)], where),
        text=said if isinstance(said, str) else json.dumps(said, ensure_ascii=False),
    )


def _metric(row: Mapping[str, Any], asked: str | None, where: str) -> str:
    """The name of the metric to take. Raises UserError naming those that there are."""
    named = row.get("metrics")
    known = [str(name) for name in named] if isinstance(named, list) else []
    known = [name for name in known if isinstance(row.get(name), int | float)]
    chosen = asked or next((name for name in (*METRICS, *known) if name in known), None)
    if chosen not in known:
        what = f"has no metric {asked!r}" if asked else "has no metric that is a number"
        raise UserError(Fault(where, what, ", ".join(known) or "none", "name one with --metric"))
    return chosen


def inspect(path: Path, metric: str | None) -> Iterator[Answer]:
    """A log of Inspect: `.json`, or `.eval` (a zip). One benchmark per log. metric: the scorer."""
    header, samples = _inspect_log(path)
    task = str((header.get("eval") or {}).get("task") or path.stem)
    for sample in samples:
        scores = sample.get("scores") or {}
        if metric is not None and scores and metric not in scores:
            allowed = ", ".join(scores)
            raise UserError(Fault(str(path), f"has no scorer {metric!r}", allowed, "name one with --metric"))
        score = scores.get(metric) if metric is not None else next(iter(scores.values()), None)
        value = score.get("value") if isinstance(score, dict) else None
        output = sample.get("output") or {}
        yield Answer(
            task,
            str(sample.get("id")),
            _whole(sample.get("epoch") or 1, f"{path}, sample {sample.get('id')}", "epoch") - 1,
            _grade(value, f"{path}, sample {sample.get('id')}"),
            text=output.get("completion"),
            prompt=sample["input"] if isinstance(sample.get("input"), str) else None,
        )


def _inspect_log(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """A log's header and its samples, one at a time."""
    try:
        if path.suffix != ".eval":
            log = json.loads(path.read_text(encoding="utf-8"))
            return log, iter(log.get("samples") or [])
        archive = zipfile.ZipFile(path)
        header = json.loads(archive.read("header.json"))
    except (ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        remedy = "write it again as JSON: inspect log convert --to json"
        raise UserError(Fault(str(path), f"is no Inspect log: {error}", remedy=remedy)) from error
    names = [name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")]
    return header, (json.loads(archive.read(name)) for name in sorted(names))


def _grade(value: Any, where: str) -> float | None:
    """A reward from a score's value; None where no score was given, so that it counts as missing."""
    if value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, str):
        if value in GRADES:
            return GRADES[value]
        try:
            value = float(value)
        except ValueError:
            raise UserError(
                Fault(where, f"{value!r} is no grade", ", ".join(GRADES) + " or a number")
            ) from None
    return _number(value, where)


def nemo_evaluator(path: Path, metric: str | None) -> Iterator[Answer]:
    """`results.jsonl` of NeMo Evaluator 0.3: one line per problem and repeat. One benchmark per folder."""
    for number, row in json_lines(path):
        reward = row.get(metric or "reward")
        said = row.get("response") or row.get("output")
        yield Answer(
            path.parent.name,
            str(row.get("problem_idx")),
            _whole(row.get("repeat") or 0, f"{path}:{number}", "repeat"),
            None if reward is None else _number(reward, f"{path}:{number}"),
            text=said if isinstance(said, str) else None,
        )


def plain(path: Path, metric: str | None) -> Iterator[Answer]:
    """Lines of `{"benchmark", "task", "reward", "answer"}`. `sample` distinguishes several answers."""
    seen: dict[tuple[str, str], int] = {}
    for number, row in json_lines(path):
        where = f"{path}:{number}"
        task, reward = row.get("task"), row.get(metric or "reward")
        if task is None or (metric or "reward") not in row:
            raise UserError(Fault(where, f"has no `task` or no `{metric or 'reward'}`", PLAIN))
        benchmark = str(row.get("benchmark") or path.stem)
        place = seen.get((benchmark, str(task)), 0)
        seen[benchmark, str(task)] = place + 1
        answer = row.get("answer")
        yield Answer(
            benchmark,
            str(task),
            _whole(place if row.get("sample") is None else row["sample"], where, "sample"),
            None if reward is None else _number(reward, where),
            text=answer if isinstance(answer, str) else None,
            prompt=row["prompt"] if isinstance(row.get("prompt"), str) else None,
        )


PLAIN = '{"benchmark": ..., "task": ..., "reward": 0 to 1, "answer": ...} on each line'


def _whole(value: Any, where: str, name: str) -> int:
    """Raises UserError for anything but a whole number of an answer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(Fault(where, f"`{name}` {value!r} is no number of an answer", "0, 1, 2, ..."))
    return value


def _number(value: Any, where: str) -> float:
    """Raises UserError for anything but a number. Whether it is a reward depends on the benchmark's range."""
    if not isinstance(value, int | float):
        raise UserError(
            Fault(where, f"{value!r} is no reward", "a number from 0 to 1", "name another with --metric")
        )
    return float(value)
