"""From what the user wrote to a completed, checked Recipe; all faults at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kascade.errors import Fault, UserError
from kascade.recipe.addresses import secret_problems
from kascade.recipe.benchmark_presets import with_presets
from kascade.recipe.checks import nearest
from kascade.recipe.defaults import over_defaults
from kascade.recipe.document import LONGEST, Node, from_value, parse_yaml
from kascade.recipe.faults import in_order, place_of, problem_faults, show, validation_faults
from kascade.recipe.file import Dials, FullDials, PresetFile, model_schema
from kascade.recipe.forms import long_recipe
from kascade.recipe.layers import (
    apply_layer,
    apply_overrides,
    merged,
    with_field,
    with_resolved_paths,
)
from kascade.recipe.schema import Part, Recipe
from kascade.recipe.whole import whole_problems

GIVEN, SETTING = "given", "--set"  # how a command line's values are called in faults
PLAIN = ("seed", "threads")  # of a recipe itself: no part of it, and changed like one
PRESETS = Path(__file__).resolve().parents[2] / "recipes"  # beside the package, in a checkout and installed


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A recipe with its source: `text` is what the user's file (or the preset) holds, word for word.

    scales: the overrides that a size's name stands for, as the spelt-out recipe declares them.
    """

    recipe: Recipe
    text: str
    root: Node
    scales: Mapping[str, Any] = field(default_factory=dict)

    def place(self, *path: str | int) -> str:
        """Where the value at `path` of the completed recipe was written ("recipe.yaml:12 stages.1.steps")."""
        return place_of(self.root, path)


def preset_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_recipe(
    source: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    *,
    model: str | None = None,
    data: str | Mapping[str, str] | None = None,
    seed: int | None = None,
    scale: str | None = None,
    budget: float | None = None,
) -> Recipe:
    """The completed recipe of a preset's name or a YAML file, with the given dials and overrides on top.

    overrides: nested as in a file ({"if_rl": {"steps": 20}}) or as texts ("if_rl.steps=20").
    Raises UserError with every fault found.
    """
    dials = {"model": model, "data": data, "seed": seed, "scale": scale, "budget": budget}
    return read_recipe(source, overrides, dials).recipe


def read_recipe(
    source: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    dials: Mapping[str, Any] | None = None,
) -> LoadedRecipe:
    """As `load_recipe`, with the source's text and places. `dials`: as in a file; None is not given."""
    path = _find(source)
    shipped = path.parent == PRESETS
    folder = Path.cwd() if shipped else path.resolve().parent
    origin = path.name if shipped else str(path)
    return read_recipe_text(_read(path), origin, folder, overrides, dials, given=GIVEN)


def read_recipe_text(
    text: str,
    origin: str,
    folder: Path,
    overrides: Mapping[str, Any] | Sequence[str] | None,
    dials: Mapping[str, Any] | None,
    *,
    given: str,
) -> LoadedRecipe:
    """As `read_recipe`, from a recipe's text. Paths in it are seen from `folder`.

    origin, given: how faults call the text, and where the dials and overrides were given (`GIVEN`: on the
    command line).
    """
    faults: list[Fault] = []
    said = {key: value for key, value in (dials or {}).items() if value is not None}
    arguments = {key: from_value(value, given, (key,)) for key, value in said.items()}
    if overrides:
        changes = _override_node(overrides, faults, SETTING if given == GIVEN else f"{given} overrides")
        arguments = {**{key: changes.mapping[key] for key in PLAIN if key in changes.mapping}, **arguments}
        left = {key: change for key, change in changes.mapping.items() if key not in PLAIN}
        arguments["overrides"] = Node(left, changes.place)
    files = _chain(parse_yaml(text, origin), faults)
    for written in (Node(dict(arguments), given), *files):  # scales and dials that end nowhere, too
        faults += problem_faults(secret_problems(written.plain()), written)
    layers = [(_checked(Dials, Node(dict(arguments), given), faults), Path.cwd())]
    layers += [(_checked(PresetFile, file, faults), folder) for file in files[:-1]]
    root = _complete(files[-1], layers, folder, faults)
    recipe = _validated(root, faults)
    scales = files[-1].mapping.get("scales")
    return LoadedRecipe(recipe, text, root, scales.plain() if scales else {})


def _find(source: str | Path) -> Path:
    names = preset_names()
    try:
        path = Path(source).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown user, NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        where = str(source)[:200].replace("\0", "\\0")
        raise UserError(
            Fault(where, f"cannot be a file: {why}", "a YAML file, or a preset's name")
        ) from error
    if str(source) in names:
        return PRESETS / f"{source}.yaml"
    if path.is_dir():
        raise UserError(
            Fault(str(source), "is a folder, not a recipe file", "a YAML file, or a preset's name")
        )
    looks_like_file = path.suffix or len(path.parts) > 1
    what = "no such file" if looks_like_file else "neither a file nor a preset"
    raise UserError(
        Fault(str(source), what, f"a YAML file, or one of {', '.join(names)}", nearest(source, names))
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > 4 * LONGEST:  # bytes of that many characters
            what = f"has {path.stat().st_size:,} bytes, which no recipe has"
            raise UserError(
                Fault(str(path), what, f"at most {LONGEST:,} characters", "is it the right file?")
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise UserError(
            Fault(str(path), f"is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8")
        ) from error


def _chain(root: Node, faults: list[Fault]) -> list[Node]:
    """The file and the presets behind it, the one that spells everything out last."""
    chain, names = [root], preset_names()
    seen: set[Any] = set()
    while "preset" in chain[-1].mapping:
        named = chain[-1].mapping["preset"]
        known = named.value in names
        if not known or named.value in seen:
            what = "the presets go round in circles" if known else f"there is no preset {show(named.plain())}"
            fault = Fault(named.place, what, ", ".join(names), nearest(named.value, names))
            _checked(PresetFile, chain[-1], faults)
            raise UserError([fault, *faults])
        seen.add(named.value)
        preset = PRESETS / f"{named.value}.yaml"
        chain.append(parse_yaml(_read(preset), preset.name))
    return chain


def _checked(form: type[Part], node: Node, faults: list[Fault]) -> dict[str, Node]:
    """The fields of `node` that `form` has and accepts; the faults of the others are added to `faults`."""
    try:
        form.model_validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        faults += validation_faults(error, node, model_schema(form))
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        return {key: part for key, part in node.mapping.items() if key not in wrong}
    return dict(node.mapping)


def _complete(
    full: Node, layers: Sequence[tuple[dict[str, Node], Path]], folder: Path, faults: list[Fault]
) -> Node:
    """The spelt-out recipe with its own dials, then the layers from the preset's side outwards."""
    own_fields = [key for key in FullDials.model_fields if key in full.mapping]
    own = _checked(FullDials, Node({key: full.mapping[key] for key in own_fields}, full.place), faults)
    rest = {key: part for key, part in full.mapping.items() if key not in own_fields}
    root = with_resolved_paths(with_presets(long_recipe(Node(rest, full.place)), faults), folder)
    scale = next((layer["scale"] for layer, _ in [*layers, (own, folder)] if "scale" in layer), None)
    _check_scales(root, own.get("scales"), scale, folder, faults)
    if scale is not None and scale.value is not None:
        root = _apply_scale(root, scale, own.get("scales"), folder, faults)
    root = apply_layer(root, own, folder, faults)
    for layer, seen_from in reversed(layers):
        root = apply_layer(root, layer, seen_from, faults)
    root = _described(root, [layer for layer, _ in layers])
    return with_presets(root, faults)  # overrides may name one, too


def _check_scales(
    root: Node, scales: Node | None, chosen: Node | None, folder: Path, faults: list[Fault]
) -> None:
    """Add the errors of the sizes that were not chosen: each is tried on the recipe as it is without one."""
    declared = dict(scales.mapping if scales else {})
    declared.pop(str(chosen.value) if chosen else "", None)
    known = set(_faults_of(root)) if declared else set()
    for scale in declared.values():
        own: list[Fault] = []
        own += _faults_of(with_presets(apply_overrides(root, scale, folder, own), own))
        faults += [fault for fault in dict.fromkeys(own) if fault not in known]


def _faults_of(root: Node) -> list[Fault]:
    try:
        _validated(root, [])
    except UserError as error:
        return list(error.faults)
    return []


def _described(root: Node, layers: Sequence[Mapping[str, Node]]) -> Node:
    """A preset's description is not that of a run with another model or other rows: say what differs."""
    given = {key for layer in layers for key, part in layer.items() if part.value is not None}
    own = [what for key, what in (("model", "another model"), ("data", "own rows")) if key in given]
    name = root.mapping.get("name")
    if not own or "description" in given or name is None:
        return root
    text = f"as the recipe {name.plain()}, with {' and '.join(own)}"
    return with_field(root, "description", Node(text, root.place))


def _apply_scale(root: Node, scale: Node, scales: Node | None, folder: Path, faults: list[Fault]) -> Node:
    declared = scales.mapping if scales else {}
    if scale.value in declared:
        return apply_overrides(root, declared[str(scale.value)], folder, faults)
    allowed = ", ".join(declared) or "nothing: this recipe declares no scales"
    faults.append(
        Fault(scale.place, f"no scale {scale.value!r} here", allowed, nearest(scale.value, list(declared)))
    )
    return root


def _validated(root: Node, faults: list[Fault]) -> Recipe:
    """The Recipe. Raises UserError with the given faults and all those of `root`."""
    plain = over_defaults(Recipe, root.plain())
    found = list(faults)
    try:
        recipe = Recipe.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        found += validation_faults(error, root, model_schema(Recipe))
        found += problem_faults(whole_problems(plain), root)
        raise UserError(in_order(found)) from None
    if found:
        raise UserError(in_order(found))
    return recipe


def _override_node(overrides: Mapping[str, Any] | Sequence[str], faults: list[Fault], said_as: str) -> Node:
    if isinstance(overrides, Mapping):
        return from_value(overrides, "overrides" if said_as == SETTING else said_as)
    tree = Node({}, said_as)
    for setting in overrides:
        try:
            tree = merged(tree, _setting(setting, f"{said_as} {setting}"))
        except UserError as error:
            faults += error.faults
    return tree


def _setting(setting: str, origin: str) -> Node:
    """ "if_rl.optimizer.learning_rate=4e-4" as a tree."""
    field, separator, text = setting.partition("=")
    keys = field.strip().split(".")
    if not separator or not all(keys):
        raise UserError(Fault(origin, "not a setting", "stage.field=value, guard.field=value", None))
    node = parse_yaml(f"value: {text}", origin).mapping["value"]
    node = from_value(node.plain(), origin)
    for key in reversed(keys):
        node = Node({key: node}, origin)
    return node
