"""The registered model in MLflow: who is champion, who was, and moving the alias from one to the next.

MLflow keeps no history of an alias, so every move is a tag of the registered model, numbered and never
changed. A move is found again by its version, so a move that is made twice is one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from kascade.errors import CheckpointError
from kascade.guard.decline import Measured
from kascade.storage.checkpoint import CheckpointRef, open_checkpoint
from kascade.tracking.mlflow_server import RUN_TAG, TrackingError

GIVEN_UP_TAG, BENCHMARKS_TAG = "kascade.given_up", "kascade.benchmarks"
ROLLED_BACK_TAG, LAST_RUN_TAG = "kascade.rolled_back", "kascade.last_run"
MEASURED_TAG, FELL_TAG = "kascade.measured", "kascade.fell"
How = Literal["promoted", "rolled back"]
LONGEST_TAG = 5000  # characters of a registered model's tag in Postgres [MLflow's tables]
UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, CheckpointError)  # tags that others changed
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version. number: as MLflow counts. reference: of its checkpoint.

    given_up, benchmarks: as its promotion left them; empty for one that Kascade did not promote so.
    rolled_back: when a person took the alias away from it; None: nobody did. measured: its scores when it
    became champion. fell: what has fallen since; () where nothing was seen to.
    """

    number: str
    reference: str
    given_up: Mapping[str, float]
    benchmarks: tuple[str, ...]
    rolled_back: str | None
    measured: Mapping[str, Measured]
    fell: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return CheckpointRef.parse(self.reference).digest

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(replace(self, measured={})) | {"measured": _as_json(self.measured)}


@dataclass(frozen=True, slots=True)
class Move:
    """The alias moved to `version`, from `previous` (None: from nothing). when: ISO 8601, UTC."""

    version: str
    previous: str | None
    how: How
    why: str
    when: str


@dataclass(frozen=True, slots=True)
class Registered:
    """The registered model called `name`, as one alias of it sees it."""

    client: Any
    name: str
    alias: str

    def versions(self) -> list[Version]:
        """Every version that names its checkpoint, oldest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        named = [_readable(one) for one in found if one.tags.get("reference")]
        return sorted((one for one in named if one is not None), key=lambda one: int(one.number))

    def champion(self) -> Version | None:
        """The version that the alias names; None where there is no model or no alias yet.

        Raises TrackingError when that version does not name its checkpoint.
        """
        number = self.holder()
        if number is None:
            return None
        found = self.find(number)
        if found is None:
            what = f"{self.alias} of {self.name} is version {number}, whose tags do not name its checkpoint"
            remedy = (
                "write it into the tag `reference` (URI@sha256:DIGEST), or name an earlier version: "
                f"kascade rollback {self.name} --to VERSION"
            )
            raise TrackingError(f"{what}. To do: {remedy}")
        return found

    def holder(self) -> str | None:
        """The number of the version that the alias names, whatever its tags say."""
        number = self._aliases().get(self.alias)
        return None if number is None else str(number)

    def find(self, number: str) -> Version | None:
        """The version of that number."""
        return next((one for one in self.versions() if one.number == number), None)

    def _aliases(self) -> Mapping[str, Any]:
        model = self._model()
        return dict(model.aliases) if model is not None else {}

    def _model(self) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def history(self) -> list[Move]:
        """Every move of the alias, oldest first."""
        model = self._model()
        tags = model.tags if model is not None else {}
        notes = [_move(tags[key]) for key in sorted(tags) if key.startswith(self._history)]
        return [one for one in notes if one is not None]

    @property
    def _history(self) -> str:
        return f"kascade.history.{self.alias}."

    def move(self, version: Version, how: How, why: str) -> None:
        """Let the alias name a version, and note it. A move that was made before is only noted if it was not.

        The alias moves first: of a move that is cut between the two, the next call writes the note.
        """
        before, moves = self._aliases().get(self.alias), self.history()
        if str(before) != version.number:
            self.client.set_registered_model_alias(self.name, self.alias, version.number)
        elif moves and moves[-1].version == version.number:
            return
        elif moves:
            before = moves[-1].version
        else:
            before = None
        move = Move(version.number, None if before is None else str(before), how, why, _now())
        key = f"{self._history}{self._notes() + 1:05d}"
        self.client.set_registered_model_tag(self.name, key, _note(move))

    def _notes(self) -> int:
        """The number of the last note of a move; none is ever written over."""
        model = self._model()
        keys = [key.removeprefix(self._history) for key in (model.tags if model is not None else {})]
        return max((int(key) for key in keys if key.isdigit()), default=0)

    def last_run(self) -> str | None:
        """What `remember_run` kept last."""
        model = self._model()
        return (model.tags.get(LAST_RUN_TAG) if model is not None else None) or None

    def remember_run(self, text: str) -> None:
        """Keep what the last run that ended was made of."""
        self._create()
        self.client.set_registered_model_tag(self.name, LAST_RUN_TAG, text)

    def mark_rolled_back(self, number: str) -> None:
        """Say that a person took the alias away: no run gives it back by itself."""
        self.client.set_model_version_tag(self.name, number, ROLLED_BACK_TAG, _now())

    def forgive(self, version: Version) -> None:
        """Take back `mark_rolled_back`."""
        if version.rolled_back is not None:
            self.client.delete_model_version_tag(self.name, version.number, ROLLED_BACK_TAG)

    def describe(
        self,
        version: Version,
        given_up: Mapping[str, float],
        benchmarks: Sequence[str],
        scores: Mapping[str, Measured],
    ) -> None:
        """Write what later challengers, and the version itself later, are held to."""
        tags = {
            GIVEN_UP_TAG: dict(given_up),
            BENCHMARKS_TAG: list(benchmarks),
            MEASURED_TAG: _as_json(scores),
        }
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version.number, key, json.dumps(value))

    def note_fall(self, version: Version, sentences: Sequence[str], now: Mapping[str, Measured]) -> None:
        """Write what has fallen since a version became champion, or that nothing has."""
        if sentences:
            found = json.dumps({"sentences": list(sentences), "now": _as_json(now)})
            self.client.set_model_version_tag(self.name, version.number, FELL_TAG, found)
        elif version.fell:
            self.client.delete_model_version_tag(self.name, version.number, FELL_TAG)

    def answer_fall(self) -> None:
        """A run has answered the champion's fall. Where it stays, it is held to what it does now."""
        champion = self.champion()
        if champion is None or not champion.fell:
            return
        tags = self.client.get_model_version(self.name, champion.number).tags
        now = {**_as_json(champion.measured), **json.loads(tags[FELL_TAG])["now"]}
        self.client.set_model_version_tag(self.name, champion.number, MEASURED_TAG, json.dumps(now))
        self.client.delete_model_version_tag(self.name, champion.number, FELL_TAG)

    def register(self, reference: str, run_id: str) -> Version:
        """The version of a checkpoint; a new one where there is none. run_id: as MLflow knows its run."""
        self._create()
        digest = CheckpointRef.parse(reference).digest
        known = [one for one in self.versions() if one.digest == digest]
        if known:
            return known[0]
        models = list(self._logged_models(run_id, digest))
        tags = {"digest": digest, "reference": reference, RUN_TAG: run_id}
        if (base := open_checkpoint(CheckpointRef.parse(reference).uri)[1].base) is not None:
            tags["base"] = base  # it is an adapter of that model
        if models:  # by tag: the client looks a `model_id` up at another address than ours
            tags["model_id"] = models[0].model_id
        source = models[0].artifact_location if models else CheckpointRef.parse(reference).uri
        return _version(self.client.create_model_version(self.name, source=source, tags=tags))

    def _create(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged_models(self, run_id: str, digest: str) -> Iterator[Any]:
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        condition = f"tags.`{RUN_TAG}` = '{run_id}' AND tags.digest = '{digest}'"
        yield from self.client.search_logged_models(experiments, filter_string=condition)


def _readable(found: Any) -> Version | None:
    """A version by its tags; None where others changed them so that nothing can be read from them."""
    try:
        version = _version(found)
        CheckpointRef.parse(version.reference)
    except UNREADABLE as error:
        log.warning("version %s of %s is left out: %s", found.version, found.name, error)
        return None
    return version


def _note(move: Move) -> str:
    """A move as text, its reasons cut where they are too long for a tag."""
    text = json.dumps(asdict(move), ensure_ascii=False)
    while (over := len(text) - LONGEST_TAG) > 0:
        move = replace(move, why=f"{move.why[: -over - 3]}...")
        text = json.dumps(asdict(move), ensure_ascii=False)
    return text


def _move(text: str) -> Move | None:
    """A note of a move; None for one that others changed."""
    try:
        return Move(**json.loads(text))
    except UNREADABLE:
        return None


def _version(found: Any) -> Version:
    tags = found.tags
    return Version(
        number=str(found.version),
        reference=tags["reference"],
        given_up=json.loads(tags.get(GIVEN_UP_TAG, "{}")),
        benchmarks=tuple(json.loads(tags.get(BENCHMARKS_TAG, "[]"))),
        rolled_back=tags.get(ROLLED_BACK_TAG),
        measured=_measured(tags.get(MEASURED_TAG, "{}")),
        fell=tuple(json.loads(tags.get(FELL_TAG, "{}")).get("sentences", ())),
    )


def _measured(text: str) -> dict[str, Measured]:
    return {name: Measured.model_validate(value) for name, value in json.loads(text).items()}


def _as_json(found: Mapping[str, Measured]) -> dict[str, Any]:
    return {name: one.model_dump() for name, one in found.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
