"""Kascade: a post-training cascade for language models, guarded against forgetting.

The library has never heard of Kubeflow: `pipelines` and `components` put it on a DAG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.version import __version__

if TYPE_CHECKING:
    from kascade.commands.face import StartedRun
    from kascade.results import BenchmarkRow


def submit(recipe: str | Path, overrides: Any = None, **options: Any) -> StartedRun:
    """Start a recipe on a cluster, or on this machine where none is named, from a notebook.

    See `kascade.commands.face.submit` for the options.
    """
    from kascade.commands import face

    return face.submit(recipe, overrides, **options)


def compare(
    a: str | Path,
    b: str | Path,
    *,
    margin: float = 0.03,
    level: float = 0.05,
    max_missing: float = 0.02,
    unequal_missing: float = 0.001,
    metric: str | None = None,
) -> list[BenchmarkRow]:
    """B against A, benchmark by benchmark: two runs, checkpoints in runs, or files of results.

    See `kascade.results` for what is read, and docs/compare.md. Raises UserError, and KascadeError for a
    number out of range.
    """
    from kascade.results import compare_results, read_results

    first, second = read_results(a, metric=metric), read_results(b, metric=metric)
    return compare_results(
        first, second, margin=margin, level=level, max_missing=max_missing, unequal_missing=unequal_missing
    )


__all__ = ["__version__", "compare", "submit"]
