"""The verb that makes room: gc."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, emit

if TYPE_CHECKING:
    from kascade.storage.collect import Evidence
    from kascade.storage.manifest import Manifest

GIB = 2**30


def register(app: typer.Typer) -> None:
    app.command("gc", hidden=True)(gc)


def gc(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs that are not under way.")],
    *,
    keep: Annotated[list[str] | None, typer.Option(help="Reference of a checkpoint to keep.")] = None,
    older_than: Annotated[float, typer.Option(min=0, help="Hours. Younger files stay.")] = 24.0,
    cache_gib: Annotated[
        float | None, typer.Option(min=0, help="Also shrink this machine's cache to this many GiB.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete. Without it, gc only lists.")] = False,
    as_json: AsJson = False,
) -> None:
    """List or delete rejected checkpoints that nothing depends on, and leftovers of interrupted writes.

    Example: kascade gc runs/own --delete
    """
    from kascade.storage import cache
    from kascade.storage.collect import find_garbage, remove
    from kascade.storage.uris import open_store

    with contextlib.ExitStack() as stack:
        stores, evidence = _evidence(runs, keep or [], stack)
        found: dict[str, dict[str, Any]] = {}
        for uri in sorted(stores):
            store = open_store(uri)
            garbage = find_garbage(store, evidence, min_age=timedelta(hours=older_than))
            found[uri] = {
                "checkpoints": garbage.checkpoints,
                "leftovers": garbage.names.get("", []),
                "unfinished_uploads": [upload.name for upload in garbage.uploads],
                "bytes": garbage.num_bytes,
            }
            if delete:
                remove(store, garbage)
    pruned = cache.prune(int(cache_gib * GIB)) if delete and cache_gib is not None else []
    if as_json:
        emit({"deleted": delete, "stores": found, "pruned_from_cache": pruned})
        return
    for uri, one in found.items():
        what = "removed" if delete else "to remove; add --delete"
        typer.echo(f"{uri}: {one['bytes'] / GIB:.2f} GiB {what}")
        lines = [f"{name}: {why}" for name, why in one["checkpoints"].items()]
        lines += [f"{name}: left over" for name in one["leftovers"]]
        lines += [f"{name}: upload not finished" for name in one["unfinished_uploads"]]
        typer.echo("".join(f"  {line}\n" for line in lines), nl=False)
    if pruned:
        typer.echo(f"{len(pruned)} checkpoints removed from the cache")


def _evidence(runs: list[Path], keep: list[str], stack: contextlib.ExitStack) -> tuple[set[str], Evidence]:
    """The stores that the runs' checkpoints are in, and what is known about them. Runs stay locked meanwhile.

    A rejected checkpoint is an attempt of a stage whose outcome accepted another one, or none.
    """
    from kascade.guard.lineage import read_outcomes
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.storage.collect import Evidence
    from kascade.storage.run_folder import RunFolder
    from pipelines.process import folder_lock

    stores: set[str] = set()
    rejected: set[str] = set()
    kept = set(map(_digest, keep))
    for run in runs:
        read_run_recipe(run)
        layout = RunFolder(run.absolute())
        stack.enter_context(folder_lock(layout.runner_lock))
        manifests: dict[str, Manifest] = {}
        for ref, found in layout.checkpoints():
            manifests[found.digest] = found
            stores.add(ref.uri.removesuffix(f"/{found.id}"))
        for outcome in read_outcomes(layout):
            kept |= {_digest(one) for one in (outcome.accepted, outcome.parent) if one}
            candidate = manifests.get(_digest(outcome.candidate))
            if candidate is not None and candidate.stage == outcome.stage:
                trained = _trained(candidate, manifests).digest
                own = [one for one in manifests.values() if one.stage == outcome.stage]
                rejected |= {one.digest for one in own if _trained(one, manifests).digest == trained}
    return stores, Evidence(rejected=rejected, kept=kept)


def _trained(manifest: Manifest, manifests: Mapping[str, Manifest]) -> Manifest:
    """The training that an attempt of a stage goes back to: itself, or what its recoveries began from."""
    parent = manifests.get(_digest(manifest.parent)) if manifest.parent else None
    return _trained(parent, manifests) if parent is not None and parent.stage == manifest.stage else manifest


def _digest(reference: str) -> str:
    from kascade.storage.checkpoint import CheckpointRef

    return CheckpointRef.parse(reference).digest
