"""`kascade data`: the data doctor, and the rows of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.arguments import Changes, RowPairs, rows_by_environment
from kascade.commands.grading_arguments import (
    EnvironmentOptions,
    JudgeKey,
    JudgeName,
    JudgeUrl,
    environment_options,
    judge_at,
)
from kascade.commands.output import AsJson, collapsed, counted, emit
from kascade.commands.rows import write_rows
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from kascade.data.chat import ChatFormat
    from kascade.doctor.graders import Trial
    from kascade.doctor.rows import DataReport
    from kascade.recipe.judge_model import JudgeModel
    from kascade.recipe.parts import DataSource
    from kascade.recipe.schema import Recipe
    from kascade.task import Task

PLAIN_WIDTH = 110  # of output that does not go to a terminal
SHOWN_FAULTS = 20
SHOWN_TEXT = 4000  # characters of the loss view
BAR = 40  # characters of a histogram's longest bar
ExamRows = Annotated[
    list[str] | None, typer.Option("--benchmark", help="Exam rows to look for in the rows (repeatable).")
]
ShownRow = Annotated[int, typer.Option(min=1, help="Which good row to show as the loss sees it.")]
GradedRows = Annotated[int, typer.Option(min=0, help="Rows an environment whose gold answers are graded.")]
Similarity = Annotated[float, typer.Option(min=0.5, max=1, help="From which on rows are near duplicates.")]
SeenShare = Annotated[float, typer.Option(min=0.01, max=1, help="From here on a task counts as seen.")]


def register(app: typer.Typer) -> None:
    data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    data.callback()(_data)
    data.command("check")(check)
    data.command("rows")(write_rows)
    app.add_typer(data, name="data")


def _data() -> None:
    """Look into rows before anything is trained on them."""


def check(
    path: Annotated[
        str, typer.Argument(help="Rows (file, folder, hf://, s3://), a recipe, or a preset's name.")
    ],
    *,
    environment: Annotated[str, typer.Option(help="Environment of rows; any: by their fields.")] = "any",
    layout: Annotated[str, typer.Option(help="How the rows are laid out; see docs/data.md.")] = "auto",
    columns: Annotated[list[str] | None, typer.Option("--column", help="FIELD=COLUMN (repeatable).")] = None,
    prompt: Annotated[str | None, typer.Option(help="Template of the user's turn, with {column}.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a data set to read.")] = None,
    model: Annotated[str | None, typer.Option(help="Model whose tokens are counted and shown.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe whose benchmarks are looked for.")] = None,
    benchmarks: ExamRows = None,
    changes: Changes = None,
    data: RowPairs = None,
    row: ShownRow = 1,
    graded: GradedRows = 20,
    similarity: Similarity = 0.8,
    min_share: SeenShare = 0.5,
    options: EnvironmentOptions = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeName = "judge",
    judge_key_env: JudgeKey = None,
    as_json: AsJson = False,
) -> None:
    """Check rows, or all rows that a recipe reads; exit 2 on errors.

    Shows errors, lengths, what the loss sees, duplicates, contamination, and gold answers graded.

    Example: kascade data check sft.jsonl --model ./my-model --recipe own.yaml
    """
    read = _recipe(path, changes, data) if _is_recipe(path) else None
    _refuse_missing(path, read, changes, data)
    judge = judge_at(judge_url, judge_model, judge_key_env)
    given = {"environment": environment, "path": path, "layout": layout, "prompt": prompt, "split": split}
    own = environment_options(options, None if environment == "any" else environment)
    rows = {**given, "columns": _columns(columns), "options": own}
    limits = {"graded": graded, "viewed": row, "similarity": similarity, "min_share": min_share}
    against = read or (_recipe(recipe) if recipe else None)
    _report(
        read,
        rows,
        against=against,
        exam_paths=benchmarks or [],
        model=model,
        judge=judge,
        limits=limits,
        as_json=as_json,
    )


def _report(
    read: Recipe | None,
    rows: dict[str, Any],
    *,
    against: Recipe | None,
    exam_paths: list[str],
    model: str | None,
    judge: JudgeModel | None,
    limits: dict[str, Any],
    as_json: bool,
) -> None:
    """Look at the rows of a recipe, else at `rows`; raises UserError, or exits, on faults."""
    from kascade.doctor.rows import check_data
    from kascade.doctor.subject import Reading, Subject, readings
    from kascade.recipe.parts import DataSource
    from kascade.rollout.checkpoint_judge import set_up_judge

    chat = _chat(model, read)
    subject = Subject(against, generated=True, fetch=True) if against else None
    exams = {**(subject.exams if subject else {}), **_exam_rows(exam_paths)}
    faults = subject.generator_faults if subject else []
    set_up_judge(judge or (read.judge if read else None), None)
    checks: list[tuple[DataSource, Reading | None]]
    if read:
        checks = [(one.source, one) for one in readings(read) if one.source.path is not None]
    else:
        checks = [(DataSource.model_validate(rows), None)]
    if not checks and not faults:
        what = "reads no rows: every task of it is generated"
        raise UserError(Fault(rows["path"], what, remedy="give rows to check"))
    reports = [
        check_data(source, exams=exams, chat=chat, reading=reading, **limits) for source, reading in checks
    ]
    emit([report.as_json() for report in reports]) if as_json else _show(reports)
    if faults:
        raise UserError(faults)
    if any(report.faults for report in reports):
        raise typer.Exit(UserError.exit_code)


def _is_recipe(path: str) -> bool:
    from kascade.recipe.load import preset_names

    return path.endswith((".yaml", ".yml")) or (path in preset_names() and not Path(path).exists())


def _recipe(source: str, changes: list[str] | None = None, pairs: list[str] | None = None) -> Recipe:
    from kascade.recipe.load import load_recipe

    return load_recipe(source, changes, data=rows_by_environment(pairs))


def _refuse_missing(
    path: str, read: Recipe | None, changes: list[str] | None, pairs: list[str] | None
) -> None:
    """Raises UserError for a path that is neither rows nor a recipe, and for dials that rows do not have."""
    from kascade.recipe.checks import nearest
    from kascade.recipe.load import preset_names
    from kascade.storage.files import is_absent, is_folder

    if read is None and (changes or pairs):
        raise UserError(Fault("--set, --data", "change recipes, and these are rows", remedy="name a recipe"))
    if read is None and "://" not in path and is_absent(path):
        beside = Path(path).parent
        there = [str(one) for one in beside.iterdir()] if is_folder(beside) else []
        names = [*preset_names(), *there, *(Path(one).name for one in there)]
        allowed = f"rows, a recipe file, or one of {', '.join(preset_names())}"
        remedy = nearest(path, names) or "check the path"
        raise UserError(Fault(path, "is neither a file nor a preset", allowed, remedy))


def _columns(pairs: list[str] | None) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs or []]
    if faulty := [field for field, _, column in split if not field or not column]:
        raise UserError([Fault(f"--column {field}", "is not a pair", "FIELD=COLUMN") for field in faulty])
    return {field: column for field, _, column in split}


def _chat(model: str | None, recipe: Recipe | None) -> ChatFormat | None:
    """The tokens and template of a model; None without one, or where the recipe's is not on this machine."""
    from kascade.data.chat import chat_format
    from kascade.models.load import load_tokenizer, resolve_source

    source = model or (recipe.model.source if recipe else None)
    if source is None:
        return None
    try:
        folder = resolve_source(source)
    except UserError:
        if model is not None:
            raise
        return None
    return chat_format(load_tokenizer(folder), None if recipe is None else recipe.model)


def _exam_rows(paths: list[str]) -> dict[str, list[Task]]:
    from kascade.doctor.rows import load_rows
    from kascade.recipe.parts import DataSource

    found: dict[str, list[Task]] = {}
    for path in paths:
        rows = load_rows(DataSource(environment="any", path=path))
        if rows.faults:
            raise UserError(rows.faults)
        found[path] = [one.task for one in rows.placed]
    return found


def _show(reports: list[DataReport]) -> None:
    from rich.console import Console

    out = Console()
    out = out if out.is_terminal else Console(width=PLAIN_WIDTH)
    for report in reports:
        _show_report(out, report)


def _show_report(out: Console, report: DataReport) -> None:
    def say(text: str, style: str | None = None) -> None:
        out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    read_by = f" ({report.read_by})" if report.read_by else ""
    say(f"{report.path}: {counted(report.num_rows, 'row')}{read_by}", "bold")
    for name, count in report.environments.items():
        say(f"  {name}: {counted(count, 'task')}; {_smoke(report.smoke.get(name))}")
    for name, lengths in report.lengths.items():
        quantiles = ", ".join(f"{key} {value:,.0f}" for key, value in lengths.quantiles.items())
        say(
            f"{name}: {report.unit} {lengths.total:,} in all, mean {lengths.mean:,.0f}, {quantiles}, "
            f"longest {lengths.longest:,}"
        )
        most = max(count for _, _, count in lengths.buckets)
        for low, high, count in lengths.buckets:
            say(f"  {low:>8,} to {high - 1:>8,} {count:>8,} {'#' * max(1, round(BAR * count / most))}")
    _show_repeats(say, report)
    for line in report.stand_ins:
        say(line, "yellow")
    if report.viewed:
        learnt = any(part["loss"] for part in report.view)
        how = "between ⟦ and ⟧: learnt; the rest only read" if learnt else "no answer to imitate: all is read"
        say(f"{report.viewed}, as the loss sees it ({how})", "bold")
        text = "".join(f"⟦{part['text']}⟧" if part["loss"] else part["text"] for part in report.view)
        if report.calls:
            say(f"tool calls, as graders read them: {report.calls[:SHOWN_TEXT]}")
        say(text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT // 2]} […] {text[-SHOWN_TEXT // 2 :]}")
    lines = [(line, "yellow") for line in collapsed(report.skipped)]
    lines += [(line, "red") for line in collapsed(report.faults)]
    for line, colour in lines[:SHOWN_FAULTS]:
        say(line, colour)
    unseen = ", of which --json shows more" if len(lines) > SHOWN_FAULTS else ""
    if report.skipped:
        say(f"{counted(len(report.skipped), 'faulty row')} skipped, as the recipe allows", "bold")
    told = f"{counted(len(report.faults), 'error')}{unseen}" if report.faults else f"no errors{unseen}"
    say(told, "bold" if report.faults else "green")


def _smoke(found: Trial | None) -> str:
    """Whether the grader tells gold answers from empty ones, in words."""
    if found is not None and found.num_without_judge + found.num_without_server:
        judge = "asks a judge, and none is named (--judge-url)" if found.num_without_judge else None
        return f"its grader {judge or 'needs a server that does not answer'}: it was not tried"
    if found is None or not found.num_graded:
        return "no row holds a gold answer to try its grader with"
    tried = f"in {counted(found.num_graded, 'row')} tried, gold answers grade 1 and empty ones 0"
    words = f"{tried} in all but {found.num_wrong}" if found.num_wrong else tried
    without = found.num_without_gold
    return f"{words}; {counted(without, 'row')} without a gold answer" if without else words


def _show_repeats(say: Any, report: DataReport) -> None:
    repeats = report.duplicates
    if repeats:
        found = (
            f"{counted(repeats['exact_groups'], 'group')} of equal rows, "
            f"{repeats['exact_surplus']} too many; {counted(repeats['near_pairs'], 'near pair')}"
            if repeats["exact_groups"] or repeats["near_pairs"]
            else "none"
        )
        say(f"duplicates: {found} ({repeats['method']})")
        for example in repeats["examples"]:
            say("  " + ", ".join(map(str, example)))
    for name, found in report.contamination.get("benchmarks", {}).items():
        style = "yellow" if found["seen"] else None
        say(f"contamination: {found['seen']} of {found['tasks']} tasks of {name} are seen", style)
    if report.contamination.get("benchmarks"):
        say(f"  ({report.contamination['method']})")
    for one in report.contamination.get("examples", []):
        say(f"  {one['benchmark']} {one['share']:.0%}: {' '.join(one['text'].split())[:90]}")
