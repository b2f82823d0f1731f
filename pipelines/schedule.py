"""Recurring runs, declared: applying the same schedule again changes nothing; another one replaces it.

Kubeflow cannot change a recurring run, so what it is made of is hashed into its description, and a schedule
whose hash differs is created anew before the old one goes. Every run takes the pipeline's newest version,
unless the schedule is pinned. What a run may promote is up to its verdicts (`tracking.promote_as`).
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kascade.recipe.identity import short_hash
from kascade.recipe.load import LoadedRecipe
from pipelines.cron import Cron, joined
from pipelines.due import asked_at
from pipelines.remote import KubeflowApi, all_pages
from pipelines.submit import Uploaded, build_package, check_parameters, experiment_id, upload

MARK = re.compile(r"kascade schedule ([0-9a-f]{12}): (.+)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a recipe runs. pinned: always this very version, not the newest."""

    name: str
    cron: Cron
    max_concurrency: int = 1
    catch_up: bool = False
    pinned: bool = False
    service_account: str | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What an `apply` did: `unchanged`, `created` or `replaced`."""

    outcome: str
    recurring_run_id: str
    utc: str
    version: Uploaded
    link: str


@dataclass(frozen=True, slots=True)
class Known:
    """A schedule of ours that the cluster has. when: cron and zone as they were given."""

    name: str
    when: str
    utc: str
    enabled: bool
    recurring_run_id: str
    digest: str


def apply(
    schedule: Schedule,
    loaded: LoadedRecipe,
    endpoint: KubeflowApi,
    *,
    parameters: Mapping[str, str] | None = None,
    experiment: str | None = None,
    pipeline: str | None = None,
    now: datetime | None = None,
) -> Applied:
    """Make the cluster have this schedule and no other of its name. Raises UserError, ClusterError."""
    utc = schedule.cron.in_utc(now or datetime.now(UTC))
    with tempfile.TemporaryDirectory() as folder:
        package = build_package(loaded, Path(folder), pipeline)
        values = check_parameters(package, parameters or {})
        with endpoint.connect() as client:
            version = upload(client, endpoint, package, newest=not schedule.pinned)
            body = _body(schedule, utc, values, version)
            body["experiment_id"] = experiment_id(
                client, endpoint, experiment or loaded.recipe.tracking.experiment
            )
            digest = short_hash(body)
            there = [one for one in _known(client, endpoint) if one.name == schedule.name]
            same = [one for one in there if one.digest == digest and one.enabled]
            made = same[0].recurring_run_id if same else _create(client, body, digest, schedule.cron)
            others = [one for one in there if one.recurring_run_id != made]
            _remove(client, others)
            outcome = "created" if not there else "unchanged" if same and not others else "replaced"
            return Applied(outcome, made, utc, version, endpoint.link(client, f"recurringrun/details/{made}"))


def _body(schedule: Schedule, utc: str, values: Mapping[str, Any], version: Uploaded) -> dict[str, Any]:
    """What a recurring run is made of, as JSON values."""
    reference = {"pipeline_id": version.pipeline_id}
    if schedule.pinned:
        reference["pipeline_version_id"] = version.version_id
    return {
        "display_name": schedule.name,
        "pipeline_version_reference": reference,
        "parameters": dict(values),
        "cron": utc,
        "max_concurrency": schedule.max_concurrency,
        "no_catchup": not schedule.catch_up,
        "service_account": schedule.service_account,
    }


def _create(client: Any, body: Mapping[str, Any], digest: str, cron: Cron) -> str:
    """The client's own call wants a fixed version; the API follows the newest where none is named."""
    import kfp_server_api as api  # type: ignore[import-untyped]

    made = client._recurring_run_api.recurring_run_service_create_recurring_run(
        recurring_run=api.V2beta1RecurringRun(
            display_name=body["display_name"],
            description=f"kascade schedule {digest}: {cron.expression} {cron.zone}",
            experiment_id=body["experiment_id"],
            pipeline_version_reference=api.V2beta1PipelineVersionReference(
                **body["pipeline_version_reference"]
            ),
            runtime_config=api.V2beta1RuntimeConfig(parameters=body["parameters"]),
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=body["cron"])),
            max_concurrency=str(body["max_concurrency"]),
            no_catchup=body["no_catchup"],
            service_account=body["service_account"],
            mode=api.RecurringRunMode.ENABLE,
        )
    )
    return str(made.recurring_run_id)


def list_schedules(endpoint: KubeflowApi) -> list[Known]:
    """The schedules that `apply` made; others are not ours to show or remove."""
    with endpoint.connect() as client:
        return list(_known(client, endpoint))


def remove(name: str, endpoint: KubeflowApi) -> list[str]:
    """Remove the schedule of that name. Returns the ids of the recurring runs that went; [] for none."""
    with endpoint.connect() as client:
        found = [one for one in _known(client, endpoint) if one.name == name]
        _remove(client, found)
    return [one.recurring_run_id for one in found]


def _known(client: Any, endpoint: KubeflowApi) -> Iterator[Known]:
    pages = all_pages(client.list_recurring_runs, "recurring_runs", namespace=endpoint.namespace)
    for one in pages:
        mark = MARK.fullmatch(one.description or "")
        if mark is None:
            continue
        cron = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else ""
        enabled = (one.status or one.mode) in ("ENABLED", "ENABLE")
        yield Known(one.display_name, mark[2], cron, enabled, one.recurring_run_id, mark[1])


def _remove(client: Any, schedules: Sequence[Known]) -> None:
    """Disabled first, so that none fires while it goes."""
    for one in schedules:
        client.disable_recurring_run(one.recurring_run_id)
        client.delete_recurring_run(one.recurring_run_id)


def crontab(cron: Cron, folder: Path, arguments: Sequence[str], run: Path) -> str:
    """The same on one machine: a line for `crontab -e`. The command continues its own folder, so what has
    not changed is not done again; a run that is still under way keeps the next one out.

    The line starts several times an hour, asks whether the time has come in its own zone, and ends if not:
    not every cron daemon knows zones."""
    command = shlex.join(
        [sys.executable, "-m", "kascade.cli", "run", *arguments, "--out", str(run), "--quiet"]
    )
    log = shlex.quote(f"{run}.cron.log")
    place = f"cd {shlex.quote(str(folder))} && mkdir -p {shlex.quote(str(run.parent))}"  # the log comes first
    asks = shlex.join([sys.executable, "-m", "pipelines.due", cron.expression, cron.zone])
    line = f"{asks} && {place} && {command} >> {log} 2>&1".replace("%", "\\%")
    return f"{joined(set(asked_at(cron)), range(60))} * * * * {line}\n"
