"""Short ways to write what a recipe spells out: one set of forms, wherever a recipe says it.

model: ./my-model                      model: {source: ./my-model}
data: {mcqa: rows.jsonl}               data: [{source: {environment: mcqa, path: rows.jsonl}}]
data: {mcqa: {path: rows.csv, columns: {question: q}}}            the same with further fields
data: [{environment: mcqa, path: rows.jsonl, weight: 2}]          the same, weighted
source: {mcqa: rows.jsonl}             source: {environment: mcqa, path: rows.jsonl}
budget: 2                              budget: {cpu_hours: 2}
"""

from __future__ import annotations

from kascade.recipe.document import Node
from kascade.recipe.schema import DataSource

SOURCE_FIELDS = frozenset(DataSource.model_fields)


def long_model(model: Node) -> Node:
    """A model named by its source alone, as a mapping."""
    return Node({"source": model}, model.place) if isinstance(model.value, str) else model


def long_budget(budget: Node) -> Node:
    """A budget that is a number counts CPU hours."""
    if isinstance(budget.value, int | float) and not isinstance(budget.value, bool):
        return Node({"cpu_hours": budget}, budget.place)
    return budget


def long_rows(environment: str, rows: Node) -> Node:
    """`rows` (a path, or fields of a source) as the source of an environment."""
    name = Node(environment, rows.place)
    if isinstance(rows.value, dict):
        return Node({"environment": name, **rows.value}, rows.place)
    if rows.value is None:
        return Node({"environment": name}, rows.place)
    return Node({"environment": name, "path": rows}, rows.place)


def long_source(source: Node) -> Node:
    """A source named by its environment, or as {environment: path}, with its fields spelt out."""
    if isinstance(source.value, str):
        return Node({"environment": source}, source.place)
    fields = source.mapping
    if len(fields) == 1 and not SOURCE_FIELDS & fields.keys():
        ((environment, rows),) = fields.items()
        return long_rows(environment, rows)
    return source


def long_data(data: Node) -> Node:
    """The data of a stage as a list of sources with weights."""
    if isinstance(data.value, dict):
        if {"source", "environment"} & data.mapping.keys():
            return Node([_long_mix(data)], data.place)
        mixes = [_long_mix(long_rows(name, rows)) for name, rows in data.mapping.items()]
        return Node(mixes, data.place)
    if isinstance(data.value, list):
        return Node([_long_mix(item) for item in data.items], data.place)
    return data


def _long_mix(item: Node) -> Node:
    fields = item.mapping
    if "source" in fields:
        return Node({**fields, "source": long_source(fields["source"])}, item.place)
    if isinstance(item.value, str):
        return Node({"source": long_source(item)}, item.place)
    if not fields:
        return item
    weight = {"weight": fields["weight"]} if "weight" in fields else {}
    source = Node({key: part for key, part in fields.items() if key != "weight"}, item.place)
    return Node({"source": long_source(source), **weight}, item.place)


def long_stage(stage: Node) -> Node:
    """A stage, or changes of one, with its data spelt out."""
    data = stage.mapping.get("data")
    return stage if data is None else Node({**stage.mapping, "data": long_data(data)}, stage.place)


def long_benchmark(benchmark: Node) -> Node:
    """A benchmark, or changes of one, with its source spelt out."""
    source = benchmark.mapping.get("source")
    if source is None:
        return benchmark
    return Node({**benchmark.mapping, "source": long_source(source)}, benchmark.place)


def long_recipe(root: Node) -> Node:
    """A fully spelt-out recipe with all short forms in it spelt out."""
    fields = dict(root.mapping)
    if "model" in fields:
        fields["model"] = long_model(fields["model"])
    if "budget" in fields:
        fields["budget"] = long_budget(fields["budget"])
    for key, long in (("stages", long_stage), ("benchmarks", long_benchmark)):
        if key in fields and isinstance(fields[key].value, list):
            fields[key] = Node([long(item) for item in fields[key].items], fields[key].place)
    return Node(fields, root.place) if fields else root


def long_overrides(overrides: Node, parts: tuple[str, ...]) -> Node:
    """Changes of stages, benchmarks and `parts` with all short forms in them spelt out."""
    fields = dict(overrides.mapping)
    for key, change in fields.items():
        if key == "model":
            fields[key] = long_model(change)
        elif key == "budget":
            fields[key] = long_budget(change)
        elif key == "benchmarks" and isinstance(change.value, list):
            fields[key] = Node([long_benchmark(item) for item in change.items], change.place)
        elif key == "benchmarks":
            changed = {name: long_benchmark(part) for name, part in change.mapping.items()}
            fields[key] = Node(changed, change.place) if changed else change
        elif key not in parts:
            fields[key] = long_stage(change)
    return Node(fields, overrides.place)
