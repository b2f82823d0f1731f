"""Checks of where a run goes: its folder, and the jobs of several nodes on a cluster."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from kascade.data.faults import shown
from kascade.doctor.subject import NotChecked, Subject
from kascade.errors import Fault
from kascade.storage.run_folder import RunFolder

ADDRESS = re.compile(r"(?:^|/)[a-z][a-z0-9+.]+:/")  # with one slash, as paths have it
OTHER = "name another folder with --out"


def folder(subject: Subject) -> list[Fault]:
    """Why the run cannot be written to its folder. A file without a name is made in it."""
    if subject.out is None:
        raise NotChecked("no folder is named (--out)")
    return folder_faults(subject.out)


def folder_faults(out: Path) -> list[Fault]:
    """Why a run cannot be written to `out`; empty when it can."""
    if found := _no_folder(out):
        return [Fault(shown(str(out)), found, remedy=OTHER)]
    folder = RunFolder(out)
    if out.is_dir() and any(out.iterdir()) and not (folder.has_begun or folder.has_only_begun):
        what = "holds files that are not a Kascade run; nothing was touched"
        return [Fault(str(out), what, "a new or empty folder, or that of a run", OTHER)]
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:  # permissions alone do not say it: a file system may be read-only, or no place for files
        with tempfile.TemporaryFile(dir=nearest):  # no folder: a kill would leave it, and others would see it
            return []
    except OSError as error:
        what = f"cannot be written: {nearest}: {error.strerror}"
        return [Fault(str(out), what, remedy=OTHER)]


def _no_folder(out: Path) -> str | None:
    """Why a name is not and cannot become a folder of this machine."""
    if ADDRESS.search(str(out)):
        return (
            "is an address, and a run's folder is on this machine; only `storage.checkpoints` may be a bucket"
        )
    try:
        there = out.exists()
    except OSError as error:  # a name that no file can have
        return f"cannot be used: {error.strerror}"
    if not there and out.is_symlink():
        return "is a link that leads nowhere"
    return "is a file, not a folder" if there and not out.is_dir() else None


def jobs(subject: Subject) -> list[Fault]:
    """What keeps the jobs that the recipe asks for from being launched."""
    if subject.job_faults is None:
        raise NotChecked("no cluster is asked from here")
    return subject.job_faults(subject.recipe)
