"""Per-sample results of other tools: lm-eval, Inspect, NeMo Evaluator, and plain JSON lines."""

from __future__ import annotations

import json
import math
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kascade.data.json_text import SURROGATE
from kascade.errors import Fault, UserError
from kascade.results.model import Answer

# What lm-eval calls a metric of one sample, the usual ones first.
METRICS = ("exact_match", "acc", "pass@1", "prompt_level_strict_acc", "f1", "em")
AS_JSON = {"remedy": "write it again as JSON: inspect log convert --to json"}
NO_LOG = (ValueError, RecursionError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)
NEWEST_LOG = 2  # version of Inspect's logs that is read
LARGEST_ENTRY = 2**28  # bytes of one sample of a log
LARGEST, SHOWN = sys.float_info.max, 100
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # Inspect's letters: correct, partial, incorrect, no answer


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file. Raises UserError for a line that holds none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise UserError(Fault(f"{path}:{number}", "is not a JSON object", "one object per line"))
            yield number, found


def lm_eval(path: Path, metric: str | None) -> Iterator[Answer]:
    """`samples_TASK_DATE.jsonl` of lm-eval's `--log_samples`. One benchmark per task, and per filter."""
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    rows = [(f"{path}:{number}", row) for number, row in json_lines(path)]
    filters = {str(row.get("filter")) for _, row in rows}
    if rows:
        metric = _metric(rows[0][1], metric, rows[0][0])  # one for all: no sample is graded otherwise
    for where, row in rows:
        name = task if len(filters) == 1 else f"{task}/{row.get('filter')}"
        yield lm_eval_answer(name, row, metric, where)


def lm_eval_answer(benchmark: str, row: Mapping[str, Any], metric: str | None, where: str) -> Answer:
    """One sample of lm-eval's own. Raises UserError where it has no such metric."""
    said = row.get("filtered_resps") or row.get("resps")
    return Answer(
        _text(benchmark),
        f"{_named(row.get('doc_id'), where, 'doc_id')}:{_text(str(row.get('doc_hash', '')))}"[:80],
        0,
        _number(row[_metric(row, metric, where)], where),
        text=_text(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)),
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
    """A log of Inspect: `.json`, or `.eval` (a zip). One benchmark per log.

    metric: the scorer; None: the first one that the log names, for all its samples.
    """
    header, samples = _inspect_log(path)
    about = header.get("eval")
    task = _text(str((about.get("task") if isinstance(about, dict) else None) or path.stem))
    scorer = metric
    for number, sample in enumerate(samples, 1):
        if not isinstance(sample, dict):
            raise UserError(Fault(f"{path}, sample {number}", "is no object", **AS_JSON))
        where = f"{path}, sample {sample.get('id')}"
        scores, output = sample.get("scores") or {}, sample.get("output") or {}
        if not isinstance(scores, dict) or not isinstance(output, dict):
            raise UserError(Fault(where, "its `scores` and `output` are no objects", **AS_JSON))
        if metric is not None and scores and metric not in scores:
            allowed = ", ".join(scores)
            raise UserError(Fault(str(path), f"has no scorer {metric!r}", allowed, "name one with --metric"))
        scorer = scorer or next(iter(scores), None)
        score, said = scores.get(scorer), output.get("completion")
        yield Answer(
            task,
            _named(sample.get("id"), where, "id"),
            _whole(1 if sample.get("epoch") is None else sample["epoch"], where, "epoch", least=1) - 1,
            _grade(score.get("value") if isinstance(score, dict) else None, where),
            text=_text(said) if isinstance(said, str) else None,
            prompt=_text(sample["input"]) if isinstance(sample.get("input"), str) else None,
        )


def _inspect_log(path: Path) -> tuple[dict[str, Any], Iterator[Any]]:
    """A log's header and its samples, one at a time. Raises UserError for what is no log, or a newer one."""
    with refusing(path):
        if path.suffix != ".eval":
            log = json.loads(path.read_text(encoding="utf-8"))
            header, samples = log, log.get("samples") if isinstance(log, dict) else None
            found: Iterator[Any] = iter(samples if isinstance(samples, list) else ())
        else:
            archive = zipfile.ZipFile(path)
            names = [name for name in archive.namelist() if name.startswith("samples/")]
            names = [name for name in sorted(names) if name.endswith(".json")]
            header = json.loads(_entry(archive, "header.json"))
            found = _samples(path, archive, names)
    version = header.get("version", NEWEST_LOG) if isinstance(header, dict) else None
    if not isinstance(version, int) or version > NEWEST_LOG:
        what = "is no Inspect log" if version is None else f"is an Inspect log of version {version!r}"
        raise UserError(Fault(str(path), what, f"a log of version {NEWEST_LOG}", AS_JSON["remedy"]))
    return header, found


def _samples(path: Path, archive: zipfile.ZipFile, names: list[str]) -> Iterator[Any]:
    for name in names:
        with refusing(path):
            sample = json.loads(_entry(archive, name))
        yield sample


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Raises ValueError for one that would fill the memory."""
    if archive.getinfo(name).file_size > LARGEST_ENTRY:
        raise ValueError(f"{name} has more than {LARGEST_ENTRY:,} bytes")
    return archive.read(name)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Raises UserError in place of what a file that is no log causes."""
    try:
        yield
    except NO_LOG as error:
        raise UserError(Fault(str(path), f"is no Inspect log: {error}", **AS_JSON)) from error


def _grade(value: Any, where: str) -> float | None:
    """A reward from a score's value; None where no score was given, which Inspect may write as NaN: it
    counts as missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, dict | list):
        what = f"its score has several values: {json.dumps(value, ensure_ascii=True)[:SHOWN]}"
        raise UserError(Fault(where, what, "one number or letter", "name another scorer with --metric"))
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
        where, name = f"{path}:{number}", metric or "reward"
        if name not in row:
            raise UserError(
                Fault(where, f"has no `{name}`", ", ".join(map(_text, row)), "name one with --metric")
            )
        reward, said = row[name], row.get("response") or row.get("output")
        yield Answer(
            path.parent.name,
            _named(row.get("problem_idx"), where, "problem_idx"),
            _whole(row.get("repeat") or 0, where, "repeat"),
            None if reward is None else _number(reward, where),
            text=_text(said) if isinstance(said, str) else None,
        )


def plain(path: Path, metric: str | None) -> Iterator[Answer]:
    """Lines of `{"benchmark", "task", "reward", "answer"}`. `sample` distinguishes several answers."""
    seen: dict[tuple[str, str], int] = {}
    for number, row in json_lines(path):
        where = f"{path}:{number}"
        task, reward = row.get("task"), row.get(metric or "reward")
        if task is None or (metric or "reward") not in row:
            raise UserError(Fault(where, f"has no `task` or no `{metric or 'reward'}`", PLAIN))
        benchmark = _named(row.get("benchmark") or path.stem, where, "benchmark")
        task = _named(task, where, "task")
        place = seen.get((benchmark, task), 0)
        seen[benchmark, task] = place + 1
        answer = row.get("answer")
        yield Answer(
            benchmark,
            task,
            _whole(place if row.get("sample") is None else row["sample"], where, "sample"),
            None if reward is None else _number(reward, where),
            text=_text(answer) if isinstance(answer, str) else None,
            prompt=_text(row["prompt"]) if isinstance(row.get("prompt"), str) else None,
        )


PLAIN = '{"benchmark": ..., "task": ..., "reward": 0 to 1, "answer": ...} on each line'


def _whole(value: Any, where: str, name: str, least: int = 0) -> int:
    """Raises UserError for anything but a whole number of an answer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        allowed = f"{least}, {least + 1}, {least + 2}, ..."
        raise UserError(Fault(where, f"`{name}` {str(value)[:SHOWN]} is no number of an answer", allowed))
    return value


def _number(value: Any, where: str) -> float:
    """Raises UserError for anything but a number. Whether it is a reward depends on the benchmark's range."""
    if not isinstance(value, int | float) or abs(value) > LARGEST:
        what = f"{_text(repr(value))[:SHOWN]} is no reward"
        raise UserError(Fault(where, what, "a number from 0 to 1", "name another with --metric"))
    return float(value)


def _named(value: Any, where: str, name: str) -> str:
    """What a task or a benchmark is called. Raises UserError for anything but a text or a whole number."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        what = f"`{name}` {str(value)[:SHOWN]} is no name" if value is not None else f"has no `{name}`"
        raise UserError(Fault(where, what, "a text or a whole number"))
    return _text(str(value))


def _text(value: str) -> str:
    """What can be printed: half a character, which no text holds, becomes a mark."""
    return SURROGATE.sub("\ufffd", value)
