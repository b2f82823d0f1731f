"""Rows of the datasets library: folders that it saved, and datasets of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kascade.data.faults import shown
from kascade.data.tables import Found, present
from kascade.errors import Fault, UserError

HUB = "hf://"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def _datasets() -> Any:
    """The datasets library; it is an extra, since most users' rows are plain files."""
    try:
        import datasets
    except ImportError as error:
        remedy = "pip install datasets, or save the rows as JSONL or Parquet"
        raise UserError(Fault("data source", "needs the datasets library", remedy=remedy)) from error
    return datasets


def saved_rows(folder: Path, split: str | None) -> Iterator[Found]:
    """What `save_to_disk` wrote: one dataset, or a dictionary of splits."""
    try:
        found = _datasets().load_from_disk(str(folder))
    except UserError:
        raise
    except Exception as error:  # what the library makes of a damaged folder is its own affair
        why = " ".join(str(error).split())[:200]
        what = f"is not a readable saved dataset: {type(error).__name__}: {why}"
        raise UserError(Fault(str(folder), what, remedy="save or download it again")) from error
    if hasattr(found, "keys"):
        wanted = split or ("train" if "train" in found else None)
        if wanted not in found:
            what = f"has no split {wanted!r}" if wanted else "has several splits"
            raise UserError(Fault(str(folder), what, ", ".join(found), "name one: `split`"))
        found = found[wanted]
    elif split is not None:
        what = f"is one dataset without splits, and the data source names its split {split!r}"
        raise UserError(Fault(str(folder), what, remedy="leave `split` out"))
    for number, row in enumerate(found, start=1):
        yield f"{folder} row {number}", present(row)


def hub_rows(name: str, subset: str | None, split: str) -> Iterator[Found]:
    """A dataset of the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION, from its cache when offline."""
    if not HUB_NAME.fullmatch(name):
        remedy = "write the owner and the name, and nothing else but @REVISION"
        raise UserError(Fault(f"{HUB}{shown(name)}", "names no dataset", "hf://OWNER/NAME", remedy))
    repository, _, revision = name.partition("@")
    try:
        found = _datasets().load_dataset(repository, subset, split=split, revision=revision or None)
    except UserError:
        raise
    except Exception as error:  # unknown, private, offline, no such split, or damaged in the cache
        what = f"cannot be loaded: {' '.join(str(error).split())[:300]}"
        remedy = "check name, `subset`, `split` and access; offline: save it to a folder and name that"
        raise UserError(Fault(f"{HUB}{name}", what, "hf://OWNER/NAME", remedy)) from error
    for number, row in enumerate(found, start=1):
        yield f"{HUB}{name} row {number}", present(row)
