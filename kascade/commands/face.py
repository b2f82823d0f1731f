"""The library's face for notebooks: `kascade.submit(...)` gives a run that can be waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.errors import ClusterError, KascadeError

if TYPE_CHECKING:
    from pipelines.remote import KubeflowApi


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that was started. folder: where it is here; None: on a cluster, under `id` and `link`."""

    id: str
    link: str
    folder: Path | None = None
    endpoint: KubeflowApi | None = field(default=None, repr=False)

    def wait(self, every_s: float = 10.0) -> str:
        """Print what happens until the run has ended; returns `succeeded`.

        Raises KascadeError for one that failed, and for one that waits for a person or for money.
        """
        if self.endpoint is None:
            return "succeeded"  # a run on this machine has ended when `submit` returns
        from pipelines.remote_watch import TaskChange, watch

        def tell(change: TaskChange) -> None:
            print(change.state.lower(), change.name, change.error or "")  # noqa: T201 (a notebook's output)

        ended = watch(self.id, self.endpoint, every_s=every_s, tell=tell)
        if not ended.succeeded:
            raise ClusterError(f"{self.link}: {ended.state.lower()} {ended.error or ''}".strip())
        if ended.waiting:
            raise KascadeError(ended.waiting)
        return "succeeded"


def submit(
    recipe: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    host: str | None = None,
    namespace: str | None = None,
    token_file: str | Path | None = None,
    parameters: Mapping[str, str] | None = None,
    experiment: str | None = None,
    pipeline: str | None = None,
    run_name: str | None = None,
    **dials: Any,
) -> StartedRun:
    """Start a recipe. On this machine (no host) it runs to its end in the folder `out`, with a line for every
    step; on a cluster it is created and continues by itself.

    overrides: as in a recipe file, or texts ("if_rl.steps=20"). dials: model, data, seed, scale, budget,
    threads. Raises UserError with every fault; KascadeError when a run here fails.
    """
    from kascade.recipe.load import read_recipe

    loaded = read_recipe(recipe, overrides, dials)
    if host is None:
        return _run_here(loaded, Path(out or Path("runs") / loaded.recipe.name).absolute())
    from pipelines.remote import KubeflowApi
    from pipelines.submit import submit as send

    endpoint = KubeflowApi.find(host, namespace, Path(token_file) if token_file else None)
    done = send(
        loaded,
        endpoint,
        parameters=parameters,
        experiment=experiment,
        pipeline=pipeline,
        run_name=run_name,
    )
    return StartedRun(done.run_id, done.link, endpoint=endpoint)


def _run_here(loaded: Any, folder: Path) -> StartedRun:
    from rich.console import Console

    from kascade.commands.checking import examine_or_raise
    from kascade.storage.run_folder import RunFolder
    from pipelines.local import run_local

    examine_or_raise(loaded, folder)
    lines = Console(force_jupyter=False, force_terminal=False, soft_wrap=True)  # plain, also in a notebook
    result = run_local(loaded.recipe, folder, text=loaded.text, console=lines)
    if result.error is not None:
        raise KascadeError(f"{result.failed_step}: {result.error['message']}")
    if result.waiting is not None:
        raise KascadeError(f"{result.waiting.word}: {result.waiting.sentence}")
    return StartedRun(folder.name, RunFolder(folder).report.as_uri(), folder)
