"""What tools of a dialogue act on: the office, or Python classes that simulate an interface, as BFCL's do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

from kascade.environments.dialogues.class_worker import FAILED, shown
from kascade.environments.dialogues.interface_classes import WorldError
from kascade.environments.workplace.office import Office
from kascade.environments.workplace.tables import make_tables, read_tables
from kascade.sandbox.line_worker import LineWorker, WorkerError, WorkerTooSlow

_worker = LineWorker("kascade.environments.dialogues.class_worker")  # one for all dialogues of this process
_pairs = count()


class Worlds(Protocol):
    """Two worlds that start alike: the policy's, and one in which the gold calls are made.

    Every method raises WorldError where the worlds are lost through no fault of a call.
    """

    def call(self, name: str, arguments: Mapping[str, Any], *, gold: bool = False) -> str:
        """What the tool answers, as the policy reads it; errors are answers, too."""
        ...

    def alike(self) -> bool:
        """Whether both are in the same state."""
        ...

    def close(self) -> None: ...


def make_worlds(fields: Mapping[str, Any]) -> Worlds:
    """Those that a task's `world` describes, fresh. Raises WorldError; UserError for unreadable tables."""
    return ClassWorlds(fields) if "classes" in fields else OfficeWorlds(fields)


class OfficeWorlds:
    """Two offices with the same tables."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        databases = fields.get("databases")
        tables = make_tables(fields.get("tables_seed", 0)) if databases is None else read_tables(databases)
        self._offices = Office(tables), Office(tables)

    def call(self, name: str, arguments: Mapping[str, Any], *, gold: bool = False) -> str:
        return shown(self._offices[gold].call(name, arguments))

    def alike(self) -> bool:
        return self._offices[0].state() == self._offices[1].state()

    def close(self) -> None:
        pass


class ClassWorlds:
    """Instances of `classes` in the worker's process. When a call has ended that, they are made again there,
    and the calls so far repeated: a simulated interface answers the same each time."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._pair = next(_pairs)
        self._seconds, self._wall_seconds = fields["call_seconds"], fields["call_wall_seconds"]
        self._made = {"do": "make", **{name: fields[name] for name in ("classes", "config", "long_context")}}
        self._calls: list[dict[str, Any]] = []
        self._start = 0  # number of the process that has them
        with _worker.lock:
            self._ensure()

    def call(self, name: str, arguments: Mapping[str, Any], *, gold: bool = False) -> str:
        asked = {"do": "call", "gold": gold, "name": name, "arguments": {**arguments}}
        with _worker.lock:
            self._ensure()
            try:
                answer = str(self._asked(asked))
            except WorkerTooSlow:
                return f"{FAILED}it took more than {self._seconds:g} s"
            except RecursionError as error:  # of arguments nested beyond what JSON's writer follows
                return f"{FAILED}{error}"
            self._calls.append(asked)
            return answer

    def alike(self) -> bool:
        with _worker.lock:
            self._ensure()
            try:
                return self._asked({"do": "compare"}) is True
            except WorkerTooSlow as error:
                raise WorldError(f"comparing the states takes {error}") from error

    def close(self) -> None:
        with _worker.lock, suppress(WorldError, WorkerTooSlow):
            if self._start == _worker.num_starts:
                self._asked({"do": "drop"})
            self._start = 0

    def _ensure(self) -> None:
        """That the process which runs now has them. Raises WorldError."""
        try:
            _worker.start()
            if self._start != _worker.num_starts:
                for asked in (self._made, *self._calls):
                    self._asked(asked)
                self._start = _worker.num_starts
        except (WorkerError, WorkerTooSlow) as error:
            raise WorldError(f"the simulated interface: {error}") from error

    def _asked(self, request: Mapping[str, Any]) -> Any:
        """Raises WorldError and WorkerTooSlow."""
        try:
            answer = _worker.ask(
                {"pair": self._pair, **request},
                cpu_seconds=self._seconds,
                wall_seconds=self._wall_seconds,
            )
        except WorkerError as error:
            raise WorldError(f"the simulated interface: {error}") from error
        if isinstance(answer, dict):
            raise WorldError(answer["error"])
        return answer
