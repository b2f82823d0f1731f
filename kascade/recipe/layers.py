"""What is said later wins: a preset, its scale, a file's overrides, the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kascade.errors import Fault
from kascade.recipe.checks import nearest
from kascade.recipe.document import Node
from kascade.recipe.forms import long_budget, long_model, long_overrides, long_rows
from kascade.storage.files import expanded, is_file, is_folder

PARTS = (
    *("model", "guard", "judge", "storage", "tracking", "cluster", "adapter", "hardware"),
    *("attest", "notify", "retrain"),
    *("budget", "prices", "approval"),
    *("exam_processes", "save_on_signal"),
)
PLAIN_DIALS = {"name": "name", "description": "description", "seed": "seed", "threads": "threads"}


def merged(base: Node | None, change: Node) -> Node:
    """`change` over `base`: mappings field by field, everything else replaced whole."""
    if base is None or not isinstance(base.value, dict) or not isinstance(change.value, dict):
        return change
    fields = {**base.value, **{key: merged(base.value.get(key), part) for key, part in change.value.items()}}
    return Node(fields, base.place)


def with_field(root: Node, key: str, value: Node) -> Node:
    """`root` with one field set."""
    return Node({**root.mapping, key: value}, root.place)


def resolve_path(path: str, folder: Path) -> str:
    """A path as seen from the file it was written in. Addresses with a scheme, and no path, stay so."""
    if not path or "://" in path:
        return path
    try:
        return str(folder.joinpath(expanded(path)).resolve())
    except (OSError, RuntimeError, ValueError):  # too long, a link to itself, NUL: whoever opens it says so
        return path


def resolve_model(source: str, folder: Path) -> str:
    """A model's folder as an absolute path; a built-in name or hub id as it is."""
    is_path = source.startswith((".", "/", "~")) or (source and is_folder(folder.joinpath(source)))
    return resolve_path(source, folder) if is_path else source


def with_resolved_paths(root: Node, folder: Path) -> Node:
    """A fully spelt-out recipe whose relative paths are seen from `folder`."""
    model = root.mapping.get("model")
    source = model.mapping.get("source") if model else None
    if model and source and isinstance(source.value, str):
        resolved = Node(resolve_model(source.value, folder), source.place)
        root = with_field(root, "model", with_field(model, "source", resolved))
    return _map_sources(root, lambda source: _resolved_source(source, folder))


def _resolved_source(source: Node, folder: Path) -> Node:
    if (join := source.mapping.get("join")) is not None and "path" in join.mapping:
        source = with_field(source, "join", _resolved_source(join, folder))
    path = source.mapping.get("path")
    if path is None or not isinstance(path.value, str):
        return source
    return with_field(source, "path", Node(resolve_path(path.value, folder), path.place))


def _map_sources(node: Node, change: Callable[[Node], Node]) -> Node:
    """`node` with `change` applied to every data source in it."""
    if "environment" in node.mapping:
        return change(node)
    if isinstance(node.value, dict):
        return Node({key: _map_sources(part, change) for key, part in node.value.items()}, node.place)
    if isinstance(node.value, list):
        return Node([_map_sources(item, change) for item in node.value], node.place)
    return node


def _environments(node: Node) -> Iterator[str]:
    named = node.mapping.get("environment")
    if named is not None and isinstance(named.value, str):
        yield named.value
    for part in (*node.mapping.values(), *node.items):
        yield from _environments(part)


def apply_layer(root: Node, layer: Mapping[str, Node], folder: Path, faults: list[Fault]) -> Node:
    """`root` with the dials and overrides of one file (or of the command line) applied.

    Paths are seen from `folder`. What cannot be applied is left out and reported in `faults`.
    """
    if "overrides" in layer:
        root = apply_overrides(root, layer["overrides"], folder, faults)
    for dial, key in PLAIN_DIALS.items():
        if dial in layer and layer[dial].value is not None:
            root = with_field(root, key, layer[dial])
    if "budget" in layer and layer["budget"].value is not None:
        budget = merged(root.mapping.get("budget"), long_budget(layer["budget"]))
        root = with_field(root, "budget", budget)
    if "model" in layer:
        root = _apply_model(root, layer["model"], folder)
    if "data" in layer:
        root = _apply_data(root, layer["data"], folder, faults)
    return root


def _apply_model(root: Node, model: Node, folder: Path) -> Node:
    if model.value is None:
        return root
    change = Node({"model": long_model(model)}, root.place)
    return with_resolved_paths(merged(root, change), folder)


def _apply_data(root: Node, data: Node, folder: Path, faults: list[Fault]) -> Node:
    environments = sorted(set(_environments(root)))
    if isinstance(data.value, str):
        paths = _folder_paths(data, environments, folder, faults)
    else:
        named = {name: long_rows(name, node) for name, node in data.mapping.items()}
        paths = {name: _resolved_source(source, folder) for name, source in named.items()}
    for name in [name for name in paths if name not in environments]:
        what = f"no stage or benchmark of this recipe uses the environment {name!r}"
        faults.append(
            Fault(paths.pop(name).place, what, ", ".join(environments), nearest(name, environments))
        )

    def rows(source: Node) -> Node:
        own = paths.get(str(source.mapping["environment"].value))
        return merged(source, own) if own else source

    return _map_sources(root, rows)


def _folder_paths(data: Node, environments: list[str], folder: Path, faults: list[Fault]) -> dict[str, Node]:
    if "://" in str(data.value):
        remedy = "name the rows of each environment: data: {ENVIRONMENT: ADDRESS}"
        faults.append(Fault(data.place, "an address is no folder here", "a folder", remedy))
        return {}
    rows = Path(resolve_path(str(data.value), folder))
    files = {name: rows / f"{name}.jsonl" for name in environments}
    there = {name: Node(str(file), data.place) for name, file in files.items() if is_file(file)}
    found = {name: long_rows(name, path) for name, path in there.items()}
    if not found:
        allowed = ", ".join(file.name for file in files.values())
        what = "holds no rows for this recipe" if is_folder(rows) else "is not there, or is no folder"
        remedy = "name rows by environment: ENVIRONMENT=PATH"
        faults.append(Fault(data.place, f"{rows} {what}", f"a folder with any of {allowed}", remedy))
    return found


def apply_overrides(root: Node, overrides: Node, folder: Path, faults: list[Fault]) -> Node:
    """`root` with partial changes by stage name, `benchmarks`, and by name of the other parts.

    A list of benchmarks replaces all; a mapping changes or adds single ones.
    """
    overrides = long_overrides(overrides, PARTS)
    overrides = _map_sources(overrides, lambda source: _resolved_source(source, folder))
    stages = root.mapping.get("stages", Node([], root.place))
    benchmarks = root.mapping.get("benchmarks", Node([], root.place))
    for key, change in overrides.mapping.items():
        if key == "model":
            root = _apply_model(root, change, folder)
        elif key in PARTS:
            root = with_field(root, key, merged(root.mapping.get(key), change))
        elif key == "benchmarks" and isinstance(change.value, list):
            benchmarks = change
        elif key == "benchmarks":
            for name, part in change.mapping.items():
                benchmarks = _change_item(benchmarks, name, part, "benchmark", faults)
        else:
            stages = _change_item(stages, key, change, "stage", faults)
            root = _without_placement(root, key) if change.value is None else root
    return with_field(with_field(root, "stages", stages), "benchmarks", benchmarks)


def _without_placement(root: Node, stage: str) -> Node:
    """`root` without the pods of a stage that is left out."""
    cluster = root.mapping.get("cluster")
    placements = cluster.mapping.get("stages") if cluster else None
    if cluster is None or placements is None:
        return root
    kept = {name: part for name, part in placements.mapping.items() if name != stage}
    return with_field(root, "cluster", with_field(cluster, "stages", Node(kept, placements.place)))


def _change_item(items: Node, name: str, change: Node, what: str, faults: list[Fault]) -> Node:
    """The list with one named item changed, or left out where `change` is null."""
    names = [_name(item) for item in items.items]
    if name not in names and what == "benchmark" and {"source", "preset"} & change.mapping.keys():
        added = Node({"name": Node(name, change.place), **change.mapping}, change.place)
        return Node([*items.items, added], items.place)
    if name not in names:
        known = [known for known in names if known is not None]
        allowed = ", ".join([*known, *((*PARTS, "benchmarks") if what == "stage" else ())])
        faults.append(Fault(change.place, f"there is no {what} {name!r}", allowed, nearest(name, known)))
        return items
    kept = [
        merged(item, change) if _name(item) == name else item
        for item in items.items
        if not (_name(item) == name and change.value is None)
    ]
    return Node(kept, items.place)


def _name(item: Node) -> str | None:
    name = item.mapping.get("name")
    return name.value if name is not None and isinstance(name.value, str) else None
