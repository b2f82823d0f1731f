"""config.json of a model by its source, and the shape that it describes. Nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kascade.errors import CheckpointError
from kascade.recipe.shapes import Config, ModelShape, shape_of
from kascade.storage.manifest import MANIFEST, CheckpointRef, parse_manifest

KNOWN = Path(__file__).parent / "known_models"
BUILTIN = Path(__file__).parents[1] / "models" / "builtin"


def config_of(source: str) -> Config | None:
    """config.json of a model by its source: a folder, a built-in model, or a hub id that is known here.

    Of a run's adapter: of its base. None where there is none, or it cannot be read.
    """
    folder = BUILTIN / source.removeprefix("builtin://") if source.startswith("builtin://") else Path(source)
    if not (folder / "config.json").is_file():
        folder = _base_beside(folder) or folder
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return known_models().get(source)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _base_beside(folder: Path) -> Path | None:
    """The folder of the base that a manifest names: there, or beside the stage in a run that was moved."""
    try:
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
        if manifest.base is None:
            return None
        ref = CheckpointRef.parse(manifest.base)
        there = [] if ref.is_remote else [ref.path]
        there += [path.parent for path in sorted(folder.resolve().parent.parent.glob(f"*/*/{MANIFEST}"))]
        return next((one for one in there if _digest(one) == ref.digest), None)
    except (CheckpointError, OSError):
        return None


def _digest(folder: Path) -> str | None:
    path = folder / MANIFEST
    if not (path.is_file() and (folder / "config.json").is_file()):
        return None
    return parse_manifest(path.read_bytes(), str(path)).digest


def model_shape_of(source: str) -> ModelShape | None:
    """The shape of a model by its source; None for one that is not known here."""
    config = config_of(source)
    return shape_of(config) if config is not None else None


@cache
def known_models() -> Mapping[str, Config]:
    """Configs of the presets' models by hub id: what they are made of is published, their files are large."""
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(KNOWN.glob("*.json"))]
    return {hub: entry["config"] for entry in entries for hub in entry["hub"]}
