"""Kascade: a post-training cascade for language models, guarded against forgetting.

The library has never heard of Kubeflow: `pipelines` and `components` put it on a DAG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kascade.commands.face import Run

__version__ = "0.1.0"


def submit(recipe: str | Path, overrides: Any = None, **options: Any) -> Run:
    """Start a recipe on a cluster, or on this machine where none is named, from a notebook.

    See `kascade.commands.face.submit` for the options.
    """
    from kascade.commands import face

    return face.submit(recipe, overrides, **options)
