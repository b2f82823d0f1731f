"""Results by the name that a person gives: a run, a checkpoint of a run, or a file of another tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.guard.scores import all_scores
from kascade.results import outside
from kascade.results.model import TWICE, TWICE_REMEDY, Answer, Results
from kascade.storage.checkpoint import MANIFEST, CheckpointRef, parse_manifest
from kascade.storage.run_folder import RunFolder

ALLOWED = (
    "a run's folder, a checkpoint's folder in a run, lm-eval's samples_*.jsonl or their folder, "
    "an Inspect log, NeMo Evaluator's results.jsonl or its folder, or JSON lines with task and reward"
)
Reader = Callable[[Path, str | None], Iterator[Answer]]


def read_results(named: str | Path, *, metric: str | None = None, name: str | None = None) -> Results:
    """Every graded answer of what is named. metric: of files with several. name: what to call it.

    Raises UserError where nothing is there, or it is not understood.
    """
    return Results.of(name or Path(named).name, read_answers(Path(named), metric))


def has_results(named: str) -> bool:
    """Whether what is named may hold results: not an address, and not a model without a run."""
    path = Path(named)
    if not path.exists():
        return "://" not in named and "@sha256:" not in named
    is_model = (path / "config.json").is_file()
    return not is_model or any(RunFolder(parent).has_begun for parent in path.resolve().parents)


def read_answers(path: Path, metric: str | None) -> Iterator[Answer]:
    """The answers themselves, with rewards as the tool gives them. Raises UserError as `read_results`."""
    if not path.exists():
        raise UserError(Fault(str(path), "is not there", ALLOWED))
    if path.is_dir() and RunFolder(path).has_begun:
        return _of_run(RunFolder(path), _final(path))
    if (path / MANIFEST).is_file():
        return _of_checkpoint(path)
    if path.is_dir():
        files = sorted(path.rglob("samples_*.jsonl")) or sorted(path.rglob("results.jsonl"))
        files = files or sorted(path.rglob("*.eval")) or sorted(path.glob("*.jsonl"))
        return _of_files(files, metric)
    return _reader(path)(path, metric)


def _of_files(files: Sequence[Path], metric: str | None) -> Iterator[Answer]:
    """The answers of several files. Raises UserError where two are of the same benchmark: these are two runs.

    Plain JSON lines may be spread over files, as long as every sample of a task is in one of them.
    """
    known: dict[object, Path] = {}
    for file in files:
        read = _reader(file)
        for answer in read(file, metric):
            whole = read is not outside.plain
            key = answer.benchmark if whole else (answer.benchmark, answer.task, answer.sample)
            other = known.setdefault(key, file)
            if other != file and not whole:
                what = f"{answer.benchmark}, task {answer.task}, sample {answer.sample} is also in {other}"
                raise UserError(Fault(str(file), what, TWICE, TWICE_REMEDY))
            if other != file:
                what = f"benchmark {answer.benchmark} is also in {other}: these are two runs"
                raise UserError(Fault(str(file), what, "one run in a folder", "name the file of one run"))
            yield answer


def _reader(path: Path) -> Reader:
    """Who reads a file: by its name, else by its first line."""
    if path.suffix in (".eval", ".json"):
        return outside.inspect
    if path.name.startswith("samples_"):
        return outside.lm_eval
    _, first = next(outside.json_lines(path), (0, {}))
    return outside.nemo_evaluator if "problem_idx" in first else outside.plain


def _final(root: Path) -> str:
    reference = RunFolder(root).final_checkpoint()
    if reference is None:
        remedy = "name one of its checkpoints: RUN/checkpoints/STAGE/ATTEMPT"
        raise UserError(Fault(str(root), "has no final checkpoint yet", remedy=remedy))
    return CheckpointRef.parse(reference).digest


def _of_checkpoint(folder: Path) -> Iterator[Answer]:
    digest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder)).digest
    for parent in folder.resolve().parents:
        if RunFolder(parent).has_begun:
            return _of_run(RunFolder(parent), digest)
    remedy = "grade it first: kascade serve it and evaluate, or name the checkpoint inside its run"
    raise UserError(Fault(str(folder), "is not in a run's folder, where its scores would be", remedy=remedy))


def _of_run(folder: RunFolder, digest: str) -> Iterator[Answer]:
    """Screening answers of a checkpoint: every checkpoint of a run has them, on the same tasks."""
    for score in all_scores(folder):
        if score.checkpoint != digest or score.phase != "screen":
            continue
        shown = {line["task_id"]: line for line in _shown(folder, digest, score.benchmark)}
        for task, rewards in score.rewards.items():
            first = shown.get(task, {})
            for sample, reward in enumerate(rewards):
                text = first.get("answer") if sample == 0 else None
                yield Answer(score.benchmark, task, sample, reward, text, first.get("prompt"))


def _shown(folder: RunFolder, digest: str, benchmark: str) -> Iterator[dict[str, str]]:
    path = folder.samples(digest, benchmark)
    if path.is_file():
        yield from (line for _, line in outside.json_lines(path) if not line.get("greedy"))
