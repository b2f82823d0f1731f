"""The pins of `requirements.lock` that this project needs at run time: `closure.py`, in its folder.

Read from what is installed, so nothing has to be resolved: an image then holds what was tested, without
the packages that only tests want.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("attest",)  # what steps without an accelerator use beside the library's own needs


def closure(project: Path) -> set[str]:
    """Names of all distributions that the project in this folder needs, and of those that they need."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[tuple[str, str]] = set()
    texts = [*declared["dependencies"], *(t for e in EXTRAS for t in declared["optional-dependencies"][e])]
    waiting = [Requirement(text) for text in texts]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras} - {extra for known, extra in found if known == name}:
            found.add((name, extra))
            waiting += _needed(one.name, extra)
    return {name for name, _ in found}


def _needed(name: str, extra: str) -> Iterator[Requirement]:
    try:
        requirements = requires(name) or []
    except PackageNotFoundError:  # only for another machine than this one
        return
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


BUILD_ONLY = {"pip", "setuptools"}  # named as needed, yet only to build with; an image has neither


def pins(lock: str, names: set[str]) -> list[str]:
    """The lines of a lock file for these names. Raises KeyError naming what is needed and not in it."""
    locked = {canonicalize_name(line.split("==")[0]): line for line in lock.splitlines() if "==" in line}
    if missing := sorted(names - locked.keys() - BUILD_ONLY):
        raise KeyError(f"not in the lock file: {', '.join(missing)}")
    return sorted(locked[name] for name in names & locked.keys())


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    sys.stdout.write("".join(f"{pin}\n" for pin in pins(lock, closure(root))))
