"""Which sandboxes a recipe's environments need, and what confines them on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from kascade.environments import get_environment
from kascade.errors import Fault, UserError
from kascade.sandbox.commands import shared_commands
from kascade.sandbox.programs import shared_sandbox


def isolation_of(environments: Iterable[str]) -> tuple[dict[str, str], list[Fault]]:
    """What confines untrusted `programs` and `commands`, for those that the environments run; and why not.

    A machine that cannot confine them is a fault, unless `KASCADE_SANDBOX_UNCONFINED=1` says that they may
    run all the same.
    """
    needed = {kind for name in environments for kind in get_environment(name).sandboxes}
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for kind in sorted(needed):
        try:
            if kind == "programs":
                found[kind] = str(shared_sandbox().describe())
            else:
                found[kind] = str(shared_commands().isolation)
        except UserError as error:
            faults += error.faults
    return found, faults
