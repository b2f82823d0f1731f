"""Small repositories made at random: a package of several modules that use each other, tests, and one bug."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kascade.environments.small_world.programs import (
    Program,
    behaviour,
    candidate_inputs,
    slips,
    telling_inputs,
)
from kascade.environments.software_engineering.edits import Edit
from kascade.environments.software_engineering.generator import KINDS, PHRASINGS

PACKAGES = ("ledger", "garden", "harbor", "library", "orchard", "workshop")
MODULES = ("rates", "totals", "limits", "scores")
NAMES = ("adjust", "balance", "combine", "derive", "estimate", "filtered", "gauge", "highest")
NUM_FAILING, NUM_PASSING, NUM_SHOWN = 4, 2, 2
POOL = 12  # inputs of each function that tests choose from


@dataclass(frozen=True, slots=True)
class BrokenRepository:
    """files: as the agent finds them. tests: hidden calls by name, {module, function, arguments, output}.

    failing, passing: names of the tests that fail with the bug, and of those that do not. statement: the
    issue. patch: the edit that repairs it, and `path` the file that it is in.
    """

    files: Mapping[str, str]
    tests: Mapping[str, Mapping[str, Any]]
    failing: tuple[str, ...]
    passing: tuple[str, ...]
    statement: str
    patch: Edit
    path: str


@dataclass(frozen=True, slots=True)
class Bug:
    """What is broken: a function of a module, sound and broken, inputs, and those on which both differ."""

    module: str
    sound: Program
    broken: Program
    pool: list[Any]
    failing: list[int]


def make_repository(rng: random.Random, level: float) -> BrokenRepository:
    """Two modules with two functions each, up to four at level 1; one function has one slip of the pen."""
    package = rng.choice(PACKAGES)
    modules = rng.sample(MODULES, 2 + round(2 * level))
    names = iter(rng.sample(NAMES, 2 * len(modules)))
    kinds = KINDS[: 2 + round(level * (len(KINDS) - 2))]
    functions = {module: [rng.choice(kinds)(rng, next(names)) for _ in range(2)] for module in modules}
    while True:
        module = rng.choice(modules)
        place = rng.randrange(2)
        sound = functions[module][place]
        found = _slip(rng, sound)
        if found is not None:
            break
        functions[module][place] = rng.choice(kinds)(rng, sound.name)
    broken, pool, failing = found
    files = {f"{package}/__init__.py": f'"""Functions of the {package}."""\n'}
    for name, programs in functions.items():
        shown = [broken if program is sound else program for program in programs]
        files[f"{package}/{name}.py"] = _module(package, name, modules, shown)
    files["README.md"] = _readme(package, functions)
    files[f"tests/test_{package}.py"] = _visible_tests(rng, package, functions, sound)
    bug = Bug(module, sound, broken, pool, failing)
    tests, failing_names, passing_names = _hidden_tests(rng, package, functions, bug)
    search, replace = next(
        (ours, theirs) for ours, theirs in zip(broken.body, sound.body, strict=True) if ours != theirs
    )
    path = f"{package}/{module}.py"
    return BrokenRepository(
        files,
        tests,
        failing_names,
        passing_names,
        _statement(rng, f"{package}.{module}", sound, broken, pool[failing[0]]),
        Edit(f"    {search}\n", f"    {replace}\n", path),
        path,
    )


def _slip(rng: random.Random, sound: Program) -> tuple[Program, list[Any], list[int]] | None:
    """A wrong neighbour that still runs, inputs, and those on which it differs."""
    pool = candidate_inputs(rng, sound, POOL)
    right = behaviour(sound, pool)
    neighbours = slips(sound)
    rng.shuffle(neighbours)
    for broken in neighbours:
        wrong = behaviour(broken, pool)
        failing = [i for i, (a, b) in enumerate(zip(right, wrong, strict=True)) if a != b]
        runs = not any(isinstance(value, type) for value in (*right, *wrong))
        unique = "\n".join(broken.body).count(_changed(sound, broken)) == 1
        if runs and unique and len(failing) >= NUM_FAILING:
            return broken, pool, failing
    return None


def _changed(sound: Program, broken: Program) -> str:
    return next(b for a, b in zip(sound.body, broken.body, strict=True) if a != b)


def _module(package: str, name: str, modules: list[str], programs: list[Program]) -> str:
    """A module; all but the first also use the one before them."""
    at = modules.index(name)
    before = f"from {package} import {modules[at - 1]}\n\n" if at else ""
    texts = []
    for program in programs:
        head, *body = program.source.split("\n")
        texts.append("\n".join([head, f'    """{program.intent[0].upper()}{program.intent[1:]}."""', *body]))
    uses = f"USES = {modules[at - 1]}.__name__\n\n\n" if at else "\n"
    return f'"""The {name} of the {package}."""\n\n{before}{uses}' + "\n\n\n".join(texts) + "\n"


def _readme(package: str, functions: Mapping[str, list[Program]]) -> str:
    lines = [f"# {package}", ""]
    for module, programs in functions.items():
        lines += [f"- `{package}.{module}.{p.signature}`: {p.intent}" for p in programs]
    return "\n".join(lines) + "\n\nRun the tests with `python -m unittest discover -s tests`.\n"


def _visible_tests(
    rng: random.Random, package: str, functions: Mapping[str, list[Program]], sound: Program
) -> str:
    """Tests that the repository has: of every function but the broken one."""
    lines = ["import unittest", "", f"from {package} import {', '.join(functions)}", "", ""]
    lines.append("class Tests(unittest.TestCase):")
    for module, programs in functions.items():
        for program in programs:
            if program is sound:
                continue
            pool = candidate_inputs(rng, program, NUM_SHOWN)
            lines.append(f"    def test_{program.name}(self):")
            for arguments, value in zip(pool, behaviour(program, pool), strict=True):
                call = f"{module}.{program.name}({', '.join(map(repr, arguments))})"
                if not isinstance(value, type):
                    lines.append(f"        self.assertEqual({call}, {value!r})")
            lines += ["        self.assertTrue(True)", ""]
    return "\n".join(lines)


def _hidden_tests(
    rng: random.Random,
    package: str,
    functions: Mapping[str, list[Program]],
    bug: Bug,
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...], tuple[str, ...]]:
    """Calls that tell the right repair from wrong ones, and calls of all that must continue working."""
    sound, pool, failing = bug.sound, bug.pool, bug.failing
    right = behaviour(sound, pool)
    rivals = [behaviour(slip, pool) for slip in slips(sound)]
    told = telling_inputs(
        [right[i] for i in failing], [[rival[i] for i in failing] for rival in rivals], NUM_FAILING
    )
    tests: dict[str, dict[str, Any]] = {}

    def add(module: str, program: Program, arguments: Any, output: Any) -> str:
        name = f"test_{module}_{program.name}_{len(tests)}"
        tests[name] = {
            "module": f"{package}.{module}",
            "function": program.name,
            "arguments": list(arguments),
            "output": output,
        }
        return name

    chosen = [failing[i] for i in told]
    fails = tuple(add(bug.module, sound, pool[i], right[i]) for i in chosen)
    keeps = [i for i in range(len(pool)) if i not in failing][:NUM_PASSING]
    passes = [add(bug.module, sound, pool[i], right[i]) for i in keeps]
    for module, programs in functions.items():
        for program in programs:
            if program is not sound:
                inputs = candidate_inputs(rng, program, NUM_PASSING)
                values = behaviour(program, inputs)
                passes += [
                    add(module, program, arguments, value)
                    for arguments, value in zip(inputs, values, strict=True)
                    if not isinstance(value, type)
                ]
    return tests, fails, tuple(passes)


def _statement(rng: random.Random, where: str, sound: Program, broken: Program, arguments: Any) -> str:
    (right,), (wrong,) = behaviour(sound, [arguments]), behaviour(broken, [arguments])
    return rng.choice(PHRASINGS).format(
        name=f"{where}.{sound.name}",
        intent=sound.intent,
        call=f"{sound.name}({', '.join(map(repr, arguments))})",
        wrong=json.dumps(wrong),
        right=json.dumps(right),
    )
