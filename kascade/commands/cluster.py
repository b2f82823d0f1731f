"""Verbs for a cluster: submit, watch, schedule apply, list and remove."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.output import AsJson, console, duration, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from pipelines.cron import Cron
    from pipelines.remote import KubeflowApi
    from pipelines.remote_watch import RunEnd, TaskChange
    from pipelines.schedule import Applied

Host = Annotated[str | None, typer.Option(help="Kubeflow's address. Default: KASCADE_KFP_HOST.")]
Namespace = Annotated[str | None, typer.Option(help="Your namespace. Default: KASCADE_KFP_NAMESPACE.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with a bearer token. Default: KASCADE_KFP_TOKEN_FILE.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="NAME=VALUE of the run form (repeatable).")
]
Experiment = Annotated[
    str | None, typer.Option(help="Kubeflow experiment. Default: the recipe's tracking experiment.")
]
Pipeline = Annotated[str | None, typer.Option(help="The pipeline's name. Default: the recipe's name.")]
Account = Annotated[str | None, typer.Option(help="Service account of the pods.")]


def register(app: typer.Typer) -> None:
    app.command("submit")(submit)
    app.command("watch")(watch)
    schedule = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    schedule.callback()(_schedule)
    schedule.command("apply")(apply)
    schedule.command("list")(list_)
    schedule.command("remove")(remove)
    app.add_typer(schedule, name="schedule")


def _schedule() -> None:
    """Start runs again and again, on a cluster or under cron."""


def _endpoint(host: str | None, namespace: str | None, token_file: Path | None) -> KubeflowApi:
    from pipelines.remote import KubeflowApi

    return KubeflowApi.find(host, namespace, token_file)


def parse_parameters(pairs: list[str] | None) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs or []]
    faults = [
        Fault(f"--param {name}", "is not a pair", "NAME=VALUE")
        for name, equal, _ in split
        if not equal or not name
    ]
    if faults:
        raise UserError(faults)
    return {name: value for name, _, value in split}


@recipe_verb
def submit(
    arguments: RecipeArguments,
    *,
    parameters: Parameters = None,
    experiment: Experiment = None,
    pipeline: Pipeline = None,
    run_name: Annotated[
        str | None, typer.Option(help="The run's name; the recipe's name and the time by default.")
    ] = None,
    service_account: Account = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    follow: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload the pipeline (if it changed), start a run on a cluster and print its link.

    Example: kascade submit own.yaml --host http://localhost:8080 --watch
    """
    from pipelines.submit import submit as send

    endpoint = _endpoint(host, namespace, token_file)
    loaded = arguments.load()
    done = send(
        loaded,
        endpoint,
        parameters=parse_parameters(parameters),
        experiment=experiment,
        pipeline=pipeline,
        run_name=run_name,
        service_account=service_account,
    )
    if not as_json:
        typer.echo(f"{'uploaded' if done.version.fresh else 'found'} {done.version.version_name}")
        typer.echo(f"{done.run_id}\n{done.link}")
    ended = _follow(done.run_id, endpoint, 10.0, as_json) if follow else None
    if as_json:
        emit({**asdict(done), **({"state": ended.state} if ended else {})})
    if ended is not None:
        raise typer.Exit(_exit_code(ended))


def watch(
    run: Annotated[str, typer.Argument(help="Id of a run on a cluster, or the folder of a run here.")],
    *,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 10.0,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run until it ends; it continues without being watched.

    Example: kascade watch runs/own
    """
    if Path(run).is_dir():
        _watch_folder(Path(run), as_json)
        return
    if not host and not os.environ.get("KASCADE_KFP_HOST"):
        from kascade.recipe.run_recipe import nearest_run

        what = "there is no such folder here, and no Kubeflow is named to look for a run of that id"
        remedy = nearest_run(run) or "give the folder of a run, or --host for a run on a cluster"
        raise UserError(Fault(run, what, remedy=remedy))
    ended = _follow(run, _endpoint(host, namespace, token_file), every, as_json)
    if as_json:
        emit(asdict(ended))
    raise typer.Exit(_exit_code(ended))


def _exit_code(ended: RunEnd) -> int:
    """As `kascade run` ends here: another than 0 also where the run waits for a person or for money."""
    from pipelines.local import WAITS

    return 1 if not ended.succeeded else WAITS if ended.waiting else 0


def _follow(run_id: str, endpoint: KubeflowApi, every_s: float, quiet: bool) -> RunEnd:
    from pipelines import remote_watch

    last: list[str | None] = [None]

    def tell(change: TaskChange) -> None:
        last[0] = change.error or last[0]
        if not quiet:
            _tell(change)

    ended = remote_watch.watch(run_id, endpoint, every_s=every_s, tell=tell)
    if not quiet:
        typer.echo(f"{ended.state.lower()}  {ended.link}")
        if ended.waiting:
            typer.echo(ended.waiting)
        if not ended.succeeded and (error := last[0] or ended.error):
            typer.echo(error)
    return ended


def _tell(change: TaskChange) -> None:
    took = duration(change.seconds) if change.seconds is not None else ""
    typer.echo("  ".join(filter(None, (change.state.lower(), change.name, took))))


def _watch_folder(folder: Path, as_json: bool) -> None:
    """Where a run on this machine stands, as its own display shows it."""
    from kascade.guard.approval import let_time_decide, read_waiting
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.storage.run_folder import RunFolder
    from pipelines.watch import Watcher

    layout, recipe = RunFolder(folder), read_run_recipe(folder)
    let_time_decide(layout, recipe)
    rows, waiting = Watcher(layout, recipe, since=0.0).rows(), read_waiting(layout)
    if as_json:
        emit([asdict(row) for row in rows])
        return
    for row in rows:
        took = duration(row.seconds) if row.seconds else ""
        typer.echo("  ".join(filter(None, (row.mark, row.title, row.step, row.outcome, took))))
    if waiting is not None:
        typer.echo(f"{waiting.word}: {waiting.sentence}")


@recipe_verb
def apply(
    arguments: RecipeArguments,
    *,
    cron: Annotated[str, typer.Option(help="minute hour day month weekday, such as '0 2 * * 1'.")],
    timezone: Annotated[
        str, typer.Option(help="Time zone of the cron fields, such as Europe/Berlin.")
    ] = "UTC",
    name: Annotated[str | None, typer.Option(help="The schedule's name; the recipe's by default.")] = None,
    parameters: Parameters = None,
    experiment: Experiment = None,
    pipeline: Pipeline = None,
    service_account: Account = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at a time.")] = 1,
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Make up for missed times.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Always run this version, not the newest.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    local: Annotated[bool, typer.Option("--local", help="Print the line for this machine's cron.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe again and again; applying the same schedule twice changes nothing.

    Example: kascade schedule apply own.yaml --cron "0 2 * * 1" --timezone Europe/Berlin
    """
    from pipelines import schedule
    from pipelines.cron import Cron

    when = Cron(cron, timezone)
    loaded = arguments.load()
    if local:
        run = Path("runs") / (name or loaded.recipe.name)
        line = schedule.crontab(when, Path.cwd(), arguments.words(), run.absolute())
        emit({"crontab": line}) if as_json else typer.echo(line, nl=False)
        return
    done = schedule.apply(
        schedule.Schedule(name or loaded.recipe.name, when, max_concurrency, catch_up, pin, service_account),
        loaded,
        _endpoint(host, namespace, token_file),
        parameters=parse_parameters(parameters),
        experiment=experiment,
        pipeline=pipeline,
    )
    _show_applied(done, when, as_json)


def _show_applied(done: Applied, when: Cron, as_json: bool) -> None:
    """What became of a schedule, and when clocks change under it."""
    from datetime import UTC, datetime

    change = when.next_change(datetime.now(UTC).date())
    if as_json:
        emit({**asdict(done), "clocks_change": change.isoformat() if change else None})
        return
    times = f"{when.expression} {when.zone} ({done.utc} UTC)"
    typer.echo(f"{done.outcome}: {times}, {done.version.version_name}\n{done.link}")
    if change:
        remark = f"clocks in {when.zone} change on {change}; apply the schedule again then"
        console().print(remark, markup=False, highlight=False, soft_wrap=True)


def list_(
    host: Host = None, namespace: Namespace = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List the schedules that `apply` made.

    Example: kascade schedule list
    """
    from pipelines.schedule import list_schedules

    found: list[dict[str, Any]] = [
        asdict(one) for one in list_schedules(_endpoint(host, namespace, token_file))
    ]
    if as_json:
        emit(found)
        return
    for one in found:
        state = "" if one["enabled"] else "  disabled"
        typer.echo(f"{one['name']}  {one['when']}  ({one['utc']} UTC){state}")


def remove(
    name: Annotated[str, typer.Argument(help="The schedule's name.")],
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove a schedule; runs that it started continue.

    Example: kascade schedule remove own
    """
    from pipelines import schedule

    gone = schedule.remove(name, _endpoint(host, namespace, token_file))
    if not gone:
        raise UserError(Fault(name, "there is no such schedule", remedy="see `kascade schedule list`"))
    emit({"removed": gone}) if as_json else typer.echo(f"{name} removed")
