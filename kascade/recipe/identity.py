"""What determines a result: hashes that name checkpoints and steer caching.

A result is found again by its key, so a key covers exactly what the result depends on. Names, titles,
limits and goals do not change weights and are left out; the contents of data files are in, their paths not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kascade.errors import Fault, UserError
from kascade.recipe.adapter import Adapter
from kascade.recipe.checks import BASE
from kascade.recipe.schema import Benchmark, DataSource, Guard, Recipe, Stage, StagePart
from kascade.recipe.vllm import NO_RESULTS
from kascade.recipe.workers import PLACEMENT
from kascade.storage.files import is_file, is_folder
from kascade.version import __version__

_NOT_WEIGHTS = {
    **dict.fromkeys(("title", "goals", "side_branch", "parent", "limits", "save_every", "keep_states"), True),
    **dict.fromkeys(("parallel", "activations", "frozen_weights"), True),  # beyond the order of additions
    "workers": PLACEMENT,  # a stage that ran out of memory continues with more of it
}
_NOT_OF_MODEL = {"source": True, "rollout": {"vllm": NO_RESULTS}}
KEY_LENGTH = 12


def canonical_json(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_LENGTH]


@lru_cache(maxsize=1024)
def _file_digest(path: str, size: int, modified_ns: int) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        remedy = "check who may read it, and the disk"
        raise UserError(Fault(path, f"cannot be read: {error.strerror or error}", remedy=remedy)) from error


# Fields that came after recipes were first run: at their default they are left out, so that old keys stay
# valid.
_LATER_GUARD = (
    "first_share",
    "first_look",
    "better_level",
    "within_share",
    "within_margin",
    "futile_fall",
    "futile_level",
    "max_missing",
    "unequal_missing",
    "visible_fall",
    "visible_chance",
    "weak_exams",
    "let_pass_budget",
    "side_branches",
    "retention",
)
_LATER_RETENTION = ("near_best", "futile_chance")
UNUSED = (
    ("join", None),
    ("adapter", None),
    ("parallel", {"shard": None, "experts": 1, "replicate": 1}),
    ("activations", "keep"),
    ("thinking_switch", "template"),
    ("thinking_words", None),
    ("mode", None),
    ("obey_switch", False),
    ("frozen_weights", "device"),
    ("workers", None),
)

_NOT_ROWS = {"path", "count", "levels"}  # of a data source that reads rows


def data_digest(path: str) -> str:
    """Hash of a data file or folder; for one that is not here (yet, or in a bucket) its address stands in."""
    file = Path(path)
    if is_folder(file):
        inside = sorted(one for one in file.rglob("*") if one.is_file())
        return short_hash([[one.relative_to(file).as_posix(), data_digest(str(one))] for one in inside])
    if not is_file(file):
        return f"absent:{path}"
    stat = file.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns)


def _with_digests(value: Any) -> Any:
    """A dumped recipe part in which a data file stands for its contents."""
    if isinstance(value, dict):
        if "environment" in value and value.get("path") is not None:
            used = {name: item for name, item in value.items() if (name, item) != ("mode", None)}
            read = {name: item for name, item in used.items() if name not in _NOT_ROWS}
            if (join := read.pop("join", None)) is not None:
                read["join"] = {**join, "digest": data_digest(join["path"])}
            return {**read, "digest": data_digest(value["path"])}
        return {key: _with_digests(item) for key, item in value.items() if (key, item) not in UNUSED}
    if isinstance(value, list):
        return [_with_digests(item) for item in value]
    return value


def _dumped(part: Any, exclude: set[str] | dict[str, Any] | None = None) -> Any:
    return _with_digests(part.model_dump(mode="json", exclude=exclude))


def _benchmarks(recipe: Recipe) -> list[Any]:
    dumped = [_dumped(benchmark) for benchmark in recipe.benchmarks]
    plain = list(Benchmark.model_fields["reward_range"].default)
    return [
        {name: value for name, value in one.items() if (name, value) != ("reward_range", plain)}
        for one in dumped
    ]


def adapter_of(recipe: Recipe, stage: StagePart) -> Adapter | None:
    """The adapter that a stage trains: its own, else the recipe's; None: it trains all weights."""
    return stage.adapter or recipe.adapter


def keeps_adapter(recipe: Recipe, stage_name: str) -> bool:
    """Whether a stage ends with an adapter apart from its base."""
    adapter = adapter_of(recipe, find_stage(recipe, stage_name))
    return adapter is not None and adapter.at_end == "keep"


def _with_adapter(recipe: Recipe, stage: Stage) -> Stage:
    """The stage with the adapter that it trains, be it its own or the recipe's."""
    return stage.model_copy(update={"adapter": adapter_of(recipe, stage)})


def _guard(recipe: Recipe) -> Any:
    dumped, plain = _dumped(recipe.guard), _dumped(Guard())
    known = plain["retention"]
    for one in (dumped, plain):
        one["retention"] = _changed(one["retention"], known, _LATER_RETENTION)
    return _changed(dumped, plain, _LATER_GUARD)


def _changed(dumped: Mapping[str, Any], plain: Mapping[str, Any], later: Collection[str]) -> dict[str, Any]:
    """Without the later fields that are at their default."""
    return {name: value for name, value in dumped.items() if name not in later or value != plain[name]}


def _judge(recipe: Recipe) -> Any:
    """What of the judge its verdicts depend on; how patiently it is asked does not matter."""
    asked = {"model", "temperature", "top_p", "max_tokens"}
    return recipe.judge.model_dump(mode="json", include=asked) if recipe.judge else None


def find_stage(recipe: Recipe, name: str) -> Stage:
    """The stage called `name`. Raises KeyError."""
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    raise KeyError(f"no stage {name!r} in recipe {recipe.name!r}")


def earlier_stages(recipe: Recipe, name: str) -> Iterator[Stage]:
    """The stages before `name`, in order. Raises KeyError."""
    find_stage(recipe, name)
    for stage in recipe.stages:
        if stage.name == name:
            return
        yield stage


def determinants(recipe: Recipe, stage_name: str, attempt: str) -> dict[str, Any]:
    """What `attempt` of a stage depends on, beside the checkpoints it starts from and learns from."""
    stage = find_stage(recipe, stage_name)
    basis = {
        "code": __version__,
        "seed": recipe.seed,
        "model": _dumped(recipe.model, exclude=_NOT_OF_MODEL),
        "attempt": attempt,
        "judge": _judge(recipe),
        "stage": _dumped(_with_adapter(recipe, stage), exclude=_NOT_WEIGHTS),
    }
    if attempt == "train":
        return basis
    return {  # a recovery draws tasks of any domain met so far; see `borrowed` of `stage_key`
        **basis,
        "recovery": _dumped(recipe.guard.recovery, exclude={"rounds": True, "workers": PLACEMENT}),
        "earlier": [_dumped(other)["data"] for other in earlier_stages(recipe, stage_name)],
        "benchmarks": _benchmarks(recipe),
    }


def stage_key(
    recipe: Recipe,
    stage_name: str,
    attempt: str,
    parent_digest: str,
    teachers: Mapping[str, str] | None = None,
    *,
    borrowed: Sequence[DataSource] = (),
) -> str:
    """Short hash over all that determines the checkpoint of `attempt` ("train", "recover-1", "recover-2").

    parent_digest: digest of the checkpoint it starts from. teachers: digest of each domain's teacher,
    for MOPD and recoveries. borrowed: tasks of later stages that a recovery trains on. Raises KeyError for an
    unknown stage.
    """
    determined_by = determinants(recipe, stage_name, attempt)
    if borrowed:
        determined_by["borrowed"] = [_dumped(source) for source in borrowed]
    return short_hash({**determined_by, "parent": parent_digest, "teachers": dict(teachers or {})})


def model_identity(source: str) -> Any:
    """The base model as far as it can be known without reading its weights."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [source, *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files)]


def fingerprint(recipe: Recipe, stage_name: str | None = None) -> str:
    """Short hash over all that any step of a stage may depend on, beside the checkpoints handed to it.

    Passed to the pipeline's components, so that caching by parameters is right: earlier stages are in
    (their checkpoints may teach), the number of stages too (the guard spreads its level over all of
    them). `BASE` stands for the exams of the base model, None for the whole recipe.
    """
    earlier: list[Any] = []
    own: Any = None
    if stage_name is None:
        earlier = [_dumped(_with_adapter(recipe, stage)) for stage in recipe.stages]
    elif stage_name != BASE:
        stages = [_with_adapter(recipe, stage) for stage in earlier_stages(recipe, stage_name)]
        earlier = [_dumped(stage, exclude=_NOT_WEIGHTS) for stage in stages]
        own = _dumped(_with_adapter(recipe, find_stage(recipe, stage_name)))
    return short_hash(
        {
            "code": __version__,
            "seed": recipe.seed,
            "model": [model_identity(recipe.model.source), _dumped(recipe.model, exclude=_NOT_OF_MODEL)],
            "earlier": earlier,
            "stage": own,
            "num_stages": len(recipe.stages),
            "benchmarks": _benchmarks(recipe),
            "guard": _guard(recipe),
            "judge": _judge(recipe),
            "tracking": _dumped(recipe.tracking),
        }
    )


def differences(old: Any, new: Any, field: str = "") -> Iterator[str]:
    """Fields in which two JSON values differ, as "field: old → new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{field}.{key}" if field else key)
    elif old != new:
        yield f"{field}: {canonical_json(old)} → {canonical_json(new)}"
