"""The folder that an experiment writes to."""

from __future__ import annotations

from pathlib import Path

from kascade.errors import Fault, UserError


def prepare_folder(out: Path, own: Path, lab: str) -> None:
    """Make the folder of `kascade lab LAB`, and the folder `own` in it, by which it is known again.

    Raises UserError when it cannot be made, or holds something else.
    """
    remedy = "name another folder with --out"
    if out.is_dir() and any(out.iterdir()) and not own.is_dir():
        what = f"holds files that are not those of `kascade lab {lab}`; nothing was touched"
        raise UserError(Fault(str(out), what, remedy=remedy))
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {error.strerror}", remedy=remedy)) from error
