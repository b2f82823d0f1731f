"""The library's face for notebooks: `kascade.submit(...)` gives a run that can be waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.errors import ClusterError, KascadeError

if TYPE_CHECKING:
    from pipelines.remote import Endpoint


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was started. folder: where it lies here; None: on a cluster, under `id` and `link`."""

    id: str
    link: str
    folder: Path | None = None
    endpoint: Endpoint | None = field(default=None, repr=False)

    def wait(self, every_s: float = 10.0) -> str:
        """Print what happens until the run has ended; returns `succeeded`. Raises KascadeError otherwise."""
        if self.endpoint is None:
            return "succeeded"  # a run on this machine has ended when `submit` returns
        from pipelines.remote_watch import TaskChange, watch

        def tell(change: TaskChange) -> None:
            print(change.state.lower(), change.name, change.error or "")  # noqa: T201 (a notebook's output)

        ended = watch(self.id, self.endpoint, every_s=every_s, tell=tell)
        if not ended.succeeded:
            raise ClusterError(f"{self.link}: {ended.state.lower()} {ended.error or ''}".strip())
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
) -> Run:
    """Start a recipe. On this machine (no host) it runs to its end in the folder `out`, with a line for every
    step; on a cluster it is created and goes on by itself.

    overrides: as in a recipe file, or texts ("if_rl.steps=20"). dials: model, data, seed, scale, budget,
    threads. Raises UserError with every fault; KascadeError when a run here fails.
    """
    from kascade.recipe.load import read_recipe

    loaded = read_recipe(recipe, overrides, dials)
    if host is None:
        return _run_here(loaded, Path(out or Path("runs") / loaded.recipe.name).absolute())
    from pipelines.remote import Endpoint
    from pipelines.submit import submit as send

    endpoint = Endpoint.find(host, namespace, Path(token_file) if token_file else None)
    done = send(
        loaded,
        endpoint,
        parameters=parameters,
        experiment=experiment,
        pipeline=pipeline,
        run_name=run_name,
    )
    return Run(done.run_id, done.link, endpoint=endpoint)


def _run_here(loaded: Any, folder: Path) -> Run:
    from rich.console import Console

    from kascade.commands.preflight import preflight_faults
    from kascade.commands.run_folder import open_run_folder
    from kascade.errors import UserError
    from pipelines.local import run_local

    if faults := preflight_faults(loaded, folder):
        raise UserError(faults)
    open_run_folder(folder, loaded.recipe, loaded.text)
    lines = Console(force_jupyter=False, force_terminal=False, soft_wrap=True)  # plain, also in a notebook
    result = run_local(loaded.recipe, folder, console=lines)
    if result.error is not None:
        raise KascadeError(f"{result.failed_step}: {result.error['message']}")
    return Run(folder.name, (folder / "report.html").as_uri(), folder)
