"""Toy tasks of repair: one small function with one error, and the tests that show it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kascade.environments.small_world.programs import (
    Arguments,
    Expression,
    Program,
    behaviour,
    candidate_inputs,
    random_condition,
    random_fold,
    random_pair,
    random_step,
    slips,
    telling_inputs,
)
from kascade.environments.software_engineering.edits import Edit

PHRASINGS = (
    "Fix {name}. It should {intent}, but {call} gives {wrong}, not {right}.",
    "{name} should {intent}. {call} gives {wrong}, not {right}. Fix it.",
    "Bug: {call} gives {wrong}, not {right}. {name} should {intent}.",
    "{call} should give {right}, not {wrong}. Fix {name} to {intent}.",
)

NUM_FAILING, NUM_PASSING = 4, 2


def _two_steps(rng: random.Random, name: str) -> Program:
    first, second = random_step(rng), random_step(rng)
    body = (f"y = {first.apply(Expression('x')).text}", f"return {second.apply(Expression('y')).text}")
    return Program(name, ("x",), f"{first.words('x')}, then {second.on_it}", body)


def _pair(rng: random.Random, name: str) -> Program:
    words, value = random_pair(rng, "a", "b")
    step = random_step(rng)
    body = (f"c = {value.text}", f"return {step.apply(Expression('c')).text}")
    return Program(name, ("a", "b"), f"{words}, then {step.on_it}", body)


def _branch(rng: random.Random, name: str) -> Program:
    condition, yes, no = random_condition(rng), random_step(rng), random_step(rng)
    negation = rng.choice(("", "not "))
    body = (
        f"if {negation}{condition.of('x')}:",
        f"    return {yes.apply(Expression('x')).text}",
        f"return {no.apply(Expression('x')).text}",
    )
    intent = f"{yes.words('x')} if x is {negation}{condition.words}, else {no.on_it}"
    return Program(name, ("x",), intent, body)


def _each_then_fold(rng: random.Random, name: str) -> Program:
    step, (_, words, value) = random_step(rng), random_fold(rng, "ys")
    body = (f"ys = [{step.apply(Expression('v')).text} for v in xs]", f"return {value.text}")
    return Program(name, ("xs",), f"{step.words('each of xs')}, then {words}", body)


def _keep_then_fold(rng: random.Random, name: str) -> Program:
    condition, (words, total) = random_condition(rng), rng.choice((("sum", "sum(ys)"), ("count", "len(ys)")))
    step = random_step(rng)
    body = (f"ys = [v for v in xs if {condition.of('v')}]", f"return {step.apply(Expression(total)).text}")
    return Program(name, ("xs",), f"{words} each of xs {condition.words}, then {step.on_it}", body)


KINDS: tuple[Callable[[random.Random, str], Program], ...] = (
    _two_steps,
    _pair,
    _each_then_fold,
    _branch,
    _keep_then_fold,
)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A sound program, a broken one, and what each returns for a pool of inputs."""

    program: Program
    broken: Program
    pool: list[Arguments]
    right: list[Any]
    wrong: list[Any]

    @property
    def failing(self) -> list[int]:
        return [i for i in range(len(self.pool)) if self.right[i] != self.wrong[i]]

    @property
    def passing(self) -> list[int]:
        return [i for i in range(len(self.pool)) if self.right[i] == self.wrong[i]]

    def statement(self, rng: random.Random) -> str:
        """The issue: what the function should do, and the shortest input on which it does not."""
        shown = min(self.failing, key=lambda i: len(repr((self.pool[i], self.wrong[i], self.right[i]))))
        return rng.choice(PHRASINGS).format(
            name=self.program.name,
            intent=self.program.intent,
            call=f"{self.program.name}({', '.join(map(repr, self.pool[shown]))})",
            wrong=self.wrong[shown],
            right=self.right[shown],
        )

    def patch(self) -> str:
        lines = zip(self.broken.body, self.program.body, strict=True)
        search, replace = next((ours, theirs) for ours, theirs in lines if ours != theirs)
        return str(Edit(f"    {search}\n", f"    {replace}\n"))

    def tests(self) -> tuple[list[int], list[int]]:
        """Inputs of the FAIL_TO_PASS tests, which also separate wrong repairs, and of PASS_TO_PASS."""
        failing = self.failing
        rivals = [behaviour(slip, self.pool) for slip in slips(self.program)]
        told = telling_inputs(
            [self.right[i] for i in failing], [[rival[i] for i in failing] for rival in rivals], NUM_FAILING
        )
        return [failing[i] for i in told], self.passing[:NUM_PASSING]


def _specimen(rng: random.Random, program: Program) -> Specimen | None:
    """The program with a slip that still runs but is wrong on some inputs; None when no slip does that."""
    pool = candidate_inputs(rng, program)
    right = behaviour(program, pool)
    candidates = slips(program)
    rng.shuffle(candidates)
    for broken in candidates:
        specimen = Specimen(program, broken, pool, right, behaviour(broken, pool))
        runs = not any(isinstance(output, type) for output in specimen.wrong)
        if runs and len(specimen.failing) >= NUM_FAILING:
            return specimen
    return None
