"""MLflow made from a run's folder, idempotently: after each stage, and again after an interruption.

Parent run = pipeline run; nested run = stage, one for each training result (a changed recipe makes another);
LoggedModel = checkpoint (no weights are copied); a metric of a model and a dataset = a score of a checkpoint
on a benchmark. What is there is found by tags, and a run whose files did not change is skipped. Timestamps
come from the files, so that a SQL store keeps a metric once that is written twice.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kascade.guard.approval import read_waiting
from kascade.guard.comparison import WORDS
from kascade.guard.end_check import read_end_verdict
from kascade.guard.verdict import read_verdict
from kascade.recipe.schema import Recipe
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_file import ensure_database, set_aside
from kascade.tracking.mlflow_metrics import (
    cost_metrics,
    curve_metrics,
    dataset_inputs,
    flat,
    score_metrics,
    trajectory_metrics,
)
from kascade.tracking.mlflow_runs import ABOVE, platforms_run, point_from, runs_of
from kascade.tracking.mlflow_server import (
    RUN_TAG,
    STAGE_TAG,
    TrackingError,
    connect,
    experiment_id,
    is_own,
    tracking_uri,
)
from kascade.tracking.nodes import CheckpointNode, RunNodes
from kascade.tracking.reading import curve

log = logging.getLogger(__name__)
SYNCED_TAG = "kascade.synced"
PIPELINE_SYNCED_TAG = "kascade.synced_pipeline"
MAX_METRICS = 1000  # in one request; MLflow refuses more
MAX_PARAMS = 100


def sync(run: Path, recipe: Recipe) -> None:
    """Bring MLflow up to date with the run's folder. Raises TrackingError when it cannot be reached.

    The run's own database is made again where it is damaged. One that MLflow refuses all the same is set
    aside, and the next call makes it anew: in this process MLflow would keep to the file that it has open.
    """
    uri, layout = tracking_uri(run, recipe), RunFolder(run)
    own = is_own(layout, uri)
    if own:
        ensure_database(layout)
    try:
        with connect(uri) as client:
            _Sync(client, layout, recipe, experiment_id(client, layout, recipe, uri)).run_all()
    except TrackingError:
        if own:
            set_aside(layout)
        raise


def tracking_id(layout: RunFolder) -> str:
    """What MLflow knows this run by: made once, kept in the folder."""
    if not layout.tracking_id.exists():
        write_text(layout.tracking_id, uuid.uuid4().hex + "\n")
    return layout.tracking_id.read_text(encoding="utf-8").strip()


class _Sync:
    """One pass over a run's folder."""

    def __init__(self, client: Any, layout: RunFolder, recipe: Recipe, experiment: str) -> None:
        self.client, self.layout, self.recipe = client, layout, recipe
        self.id = tracking_id(layout)
        self.nodes = RunNodes(layout)
        self.adopted = platforms_run(client)
        self.experiment = experiment if self.adopted is None else str(self.adopted.info.experiment_id)

    def run_all(self) -> None:
        parent, stages = self._find_runs()
        parent = parent or self._open_parent()
        self.experiment = str(parent.info.experiment_id)
        if self.adopted is not None:
            point_from(self.client, self.adopted, parent)
        models = {model.tags["id"]: model for model in self._logged_models()}
        for group in self.nodes.groups():
            first = group[0]
            known = parent if first.is_base else stages.get(first.manifest.id)
            run = known or self._open_stage(parent, first)
            ids = {node.manifest.id: self._model(run, node, models.get(node.manifest.id)) for node in group}
            self._log_group(run, group, ids)
        self._log_pipeline(parent)

    # runs

    def _find_runs(self) -> tuple[Any | None, dict[str, Any]]:
        """The pipeline's run, and the stages' runs by the id of the checkpoint they trained first."""
        runs = runs_of(self.client, self.experiment, self.id)
        stages = {run.data.tags[STAGE_TAG]: run for run in runs if STAGE_TAG in run.data.tags}
        return next((run for run in runs if STAGE_TAG not in run.data.tags), None), stages

    def _open_parent(self) -> Any:
        run = self.adopted
        if run is None:
            run = self.client.create_run(self.experiment, tags={"mlflow.runName": self.recipe.name})
        part = self.recipe.model_dump(mode="json", exclude={"stages", "benchmarks", "tracking"})
        self._log_params(run, flat(part))
        self.client.set_tag(run.info.run_id, RUN_TAG, self.id)
        return run

    def _open_stage(self, parent: Any, first: CheckpointNode) -> Any:
        tags = {
            RUN_TAG: self.id,
            STAGE_TAG: first.manifest.id,
            "mlflow.runName": first.manifest.stage,
            ABOVE: parent.info.run_id,
        }
        run = self.client.create_run(self.experiment, start_time=first.time_ms, tags=tags)
        part = next((part for part in self.recipe.stages if part.name == first.manifest.stage), None)
        if part is not None:
            self._log_params(run, flat(part.model_dump(mode="json")))
        return run

    # checkpoints

    def _logged_models(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_logged_models(
                [self.experiment], filter_string=f"tags.`{RUN_TAG}` = '{self.id}'", page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _model(self, run: Any, node: CheckpointNode, found: Any | None) -> str:
        """Id of the checkpoint's LoggedModel, made or brought up to date."""
        tags = self._model_tags(node)
        if found is None:
            name = node.manifest.id.replace("/", "-")
            found = self.client.create_logged_model(
                self.experiment, name, run.info.run_id, tags=tags, model_type="checkpoint"
            )
        elif any(found.tags.get(key) != value for key, value in tags.items()):
            self.client.set_logged_model_tags(found.model_id, tags)
        if str(found.status) != "READY":  # a new one, or one whose sync was killed before this line
            self.client.finalize_logged_model(found.model_id, "READY")
        return str(found.model_id)

    def _model_tags(self, node: CheckpointNode) -> dict[str, str]:
        return {
            RUN_TAG: self.id,
            "id": node.manifest.id,
            "uri": node.ref.uri,
            "digest": node.ref.digest,
            "stage": node.manifest.stage,
            "attempt": node.manifest.attempt,
            "parent": node.manifest.parent or "",
            "accepted": str(node.reference in self.nodes.accepted).lower(),
            **self._words(node),
        }

    def _words(self, node: CheckpointNode) -> dict[str, str]:
        """What the guard says of each benchmark: of the stage's verdict, and of the end check."""
        folder = RunFolder.tolerant(self.layout.root)  # a broken verdict must not keep the rest out of MLflow
        verdict, end = read_verdict(folder, node.manifest.id), read_end_verdict(folder, node.reference)
        judged = verdict.benchmarks if verdict else {}
        held = end.benchmarks if end else {}
        return {
            **{f"verdict.{name}": WORDS[found.word] for name, found in judged.items()},
            **{f"end.{name}": WORDS[found.standing] for name, found in held.items()},
        }

    # what a run shows

    def _log_group(self, run: Any, group: Sequence[CheckpointNode], model_ids: Mapping[str, str]) -> None:
        words = self.nodes.words(group)
        state = _state([*words, *self.nodes.measurements(group)])
        if run.data.tags.get(SYNCED_TAG) == state:
            return
        for attempt, node in enumerate(group):
            rows = curve(self.nodes.folder, node.manifest.id)
            self._log_metrics(run, curve_metrics(node.manifest.attempt, rows, node.time_ms))
            model_id = model_ids[node.manifest.id]
            self._log_metrics(run, score_metrics(self.layout, node, run.info.run_id, model_id, attempt))
        if inputs := dataset_inputs(group):
            self.client.log_inputs(run.info.run_id, inputs)
        self._log_files(run, words)
        if outcomes := self.nodes.outcomes_of(group):
            self._close(run, stopped=outcomes[-1].decision == "stopped")
        self.client.set_tag(run.info.run_id, SYNCED_TAG, state)

    def _log_pipeline(self, parent: Any) -> None:
        """Costs, the accepted line through all benchmarks, the recipe and what was made of the run."""
        shown = [self.layout.resolved_recipe, self.layout.report, self.layout.model_card]
        files = [path for path in shown if path.exists()]
        ended = [*self.layout.outcome_files(), *self._end_check(), *self._word()]
        state = _state([*files, *self.layout.cost_files(), *ended])
        if parent.data.tags.get(PIPELINE_SYNCED_TAG) == state:
            return
        self._log_metrics(parent, trajectory_metrics(self._main_line()))
        self._log_metrics(parent, cost_metrics(self.layout, self.nodes.folder.costs()))
        self._log_files(parent, files)
        for name, word in self._waiting().items():
            self.client.set_tag(parent.info.run_id, name, word)
        self._close_pipeline(parent)
        self.client.set_tag(parent.info.run_id, PIPELINE_SYNCED_TAG, state)

    def _word(self) -> list[Path]:
        return [self.layout.waiting] if self.layout.waiting.exists() else []

    def _waiting(self) -> dict[str, str]:
        """What the run waits for, as tags; both are empty where it goes on."""
        found = read_waiting(self.layout)
        word, before = (found.word, found.before) if found else ("", "")
        return {"kascade.waiting": word, "kascade.waiting_before": before}

    def _main_line(self) -> list[CheckpointNode]:
        """What each stage of the main line ended with, in order."""
        own = self.nodes.own_outcomes()
        ended = (own.get(part.name) for part in self.recipe.stages if not part.side_branch)
        accepted = [outcome.accepted for outcome in ended if outcome is not None and outcome.accepted]
        return [self.nodes.by_reference[one] for one in accepted if one in self.nodes.by_reference]

    def _close_pipeline(self, parent: Any) -> None:
        """An adopted run is closed by the platform that opened it."""
        adopted = self.adopted is not None and self.adopted.info.run_id == parent.info.run_id
        own = self.nodes.own_outcomes()
        ended = [own[part.name] for part in self.recipe.stages if part.name in own]
        stopped = any(outcome.decision == "stopped" for outcome in ended) or self._stopped_at_end()
        if not adopted and (stopped or len(ended) == len(self.recipe.stages)):
            self._close(parent, stopped)

    def _end_check(self) -> list[Path]:
        files = [self.layout.end_verdict(node.manifest.digest) for node in self._main_line()[-1:]]
        return [path for path in files if path.exists()]

    def _stopped_at_end(self) -> bool:
        """Whether the end check stopped the run, as the recipe asks where something is not kept."""
        line = self._main_line()
        end = read_end_verdict(self.layout, line[-1].reference) if line else None
        return end is not None and not end.kept and self.recipe.guard.retention.on_loss == "stop"

    # writing

    def _close(self, run: Any, stopped: bool) -> None:
        self.client.set_terminated(run.info.run_id, "FAILED" if stopped else "FINISHED")

    def _log_metrics(self, run: Any, metrics: Sequence[Any]) -> None:
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(run.info.run_id, metrics=metrics[start : start + MAX_METRICS])

    def _log_params(self, run: Any, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        found = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(found), MAX_PARAMS):
            self.client.log_batch(run.info.run_id, params=found[start : start + MAX_PARAMS])

    def _log_files(self, run: Any, paths: Sequence[Path]) -> None:
        for path in paths:
            folder = path.parent.relative_to(self.layout.root).as_posix()
            self.client.log_artifact(run.info.run_id, str(path), None if folder == "." else folder)


def _state(paths: Sequence[Path]) -> str:
    """Changes when one of the files does."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
