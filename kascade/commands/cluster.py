"""Verbs for a cluster: submit, watch, schedule apply, list and remove."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.output import AsJson, console, duration, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from pipelines.remote import Endpoint
    from pipelines.remote_watch import Ended, TaskChange

Host = Annotated[str | None, typer.Option(help="Kubeflow's address; else KASCADE_KFP_HOST.")]
Namespace = Annotated[str | None, typer.Option(help="Your namespace; else KASCADE_KFP_NAMESPACE.")]
TokenFile = Annotated[Path | None, typer.Option(help="Holds a bearer token; else KASCADE_KFP_TOKEN_FILE.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="NAME=VALUE of the run form (repeatable).")
]
Experiment = Annotated[str | None, typer.Option(help="Kubeflow's experiment; else that of tracking.")]
Pipeline = Annotated[str | None, typer.Option(help="The pipeline's name; else the recipe's.")]
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
    """Runs that recur, on a cluster or under cron."""


def _endpoint(host: str | None, namespace: str | None, token_file: Path | None) -> Endpoint:
    from pipelines.remote import Endpoint

    return Endpoint.find(host, namespace, token_file)


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
    run_name: Annotated[str | None, typer.Option(help="Else the recipe's name and the time.")] = None,
    service_account: Account = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    follow: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a recipe's pipeline (once a content), start a run on a cluster and print its link."""
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
        raise typer.Exit(0 if ended.succeeded else 1)


def watch(
    run: Annotated[str, typer.Argument(help="Id of a run on a cluster, or the folder of a run here.")],
    *,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 10.0,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run until it ends; it goes on without being watched."""
    if Path(run).is_dir():
        _watch_folder(Path(run), as_json)
        return
    ended = _follow(run, _endpoint(host, namespace, token_file), every, as_json)
    if as_json:
        emit(asdict(ended))
    raise typer.Exit(0 if ended.succeeded else 1)


def _follow(run_id: str, endpoint: Endpoint, every_s: float, quiet: bool) -> Ended:
    from pipelines import remote_watch

    ended = remote_watch.watch(run_id, endpoint, every_s=every_s, tell=_silent if quiet else _tell)
    if not quiet:
        error = f"\n{ended.error}" if ended.error else ""
        typer.echo(f"{ended.state.lower()}  {ended.link}{error}")
    return ended


def _tell(change: TaskChange) -> None:
    took = duration(change.seconds) if change.seconds is not None else ""
    parts = (change.state.lower(), change.name, took, change.error or "")
    typer.echo("  ".join(filter(None, parts)))


def _silent(change: TaskChange) -> None:
    del change


def _watch_folder(folder: Path, as_json: bool) -> None:
    """Where a run on this machine stands, as its own display shows it."""
    from kascade.commands.run_folder import read_run_recipe
    from kascade.storage.layout import RunLayout
    from pipelines.watch import Watcher

    rows = Watcher(RunLayout(folder), read_run_recipe(folder), since=0.0).rows()
    if as_json:
        emit([asdict(row) for row in rows])
        return
    for row in rows:
        took = duration(row.seconds) if row.seconds else ""
        typer.echo("  ".join(filter(None, (row.mark, row.title, row.step, row.outcome, took))))


@recipe_verb
def apply(
    arguments: RecipeArguments,
    *,
    cron: Annotated[str, typer.Option(help="minute hour day month weekday, such as '0 2 * * 1'.")],
    timezone: Annotated[str, typer.Option(help="Of the cron fields, such as Europe/Berlin.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Of the schedule; else the recipe's.")] = None,
    parameters: Parameters = None,
    experiment: Experiment = None,
    pipeline: Pipeline = None,
    service_account: Account = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at a time.")] = 1,
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Make up for missed times.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Always this version, not the newest.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    local: Annotated[bool, typer.Option("--local", help="Print the lines for this machine's cron.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe again and again; applying the same schedule twice changes nothing."""
    from datetime import UTC, datetime

    from pipelines import schedule
    from pipelines.cron import Cron

    when = Cron(cron, timezone)
    loaded = arguments.load()
    if local:
        run = Path("runs") / (name or loaded.recipe.name)
        lines = schedule.crontab(when, Path.cwd(), arguments.words(), run.absolute())
        emit({"crontab": lines}) if as_json else typer.echo(lines, nl=False)
        return
    done = schedule.apply(
        schedule.Schedule(name or loaded.recipe.name, when, max_concurrency, catch_up, pin, service_account),
        loaded,
        _endpoint(host, namespace, token_file),
        parameters=parse_parameters(parameters),
        experiment=experiment,
        pipeline=pipeline,
    )
    change = when.next_change(datetime.now(UTC).date())
    if as_json:
        emit({**asdict(done), "clocks_change": change.isoformat() if change else None})
        return
    typer.echo(
        f"{done.outcome}: {cron} {timezone} ({done.utc} UTC), {done.version.version_name}\n{done.link}"
    )
    if change:
        remark = f"clocks in {timezone} change on {change}; apply the schedule again then"
        console().print(remark, markup=False, highlight=False, soft_wrap=True)


def list_(
    host: Host = None, namespace: Namespace = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List the schedules that `apply` made."""
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
    """Remove a schedule; runs that it started go on."""
    from pipelines import schedule

    gone = schedule.remove(name, _endpoint(host, namespace, token_file))
    if not gone:
        raise UserError(Fault(name, "there is no such schedule", remedy="see `kascade schedule list`"))
    emit({"removed": gone}) if as_json else typer.echo(f"{name} removed")
