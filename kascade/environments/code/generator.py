"""Toy tasks of code generation: small functions, posed in many phrasings."""

from __future__ import annotations

import random
from collections.abc import Callable

from kascade.environments.small_world.programs import (
    Expression,
    Program,
    random_condition,
    random_fold,
    random_pair,
    random_step,
)

PHRASINGS = (
    "Write {signature}: {intent}.",
    "Define {signature}. It should {intent}.",
    "Write a function {signature} to {intent}.",
    "Python {signature}: {intent}.",
)


def _returning(name: str, params: tuple[str, ...], intent: str, expression: str) -> Program:
    return Program(name, params, intent, (f"return {expression}",))


def _one_step(rng: random.Random, name: str) -> Program:
    x, step = rng.choice("xnk"), random_step(rng)
    return _returning(name, (x,), step.words(x), step.apply(Expression(x)).text)


def _pair(rng: random.Random, name: str) -> Program:
    words, value = random_pair(rng, *(params := rng.choice((("a", "b"), ("x", "y"), ("m", "n")))))
    step = random_step(rng)
    return _returning(name, params, f"{words}, then {step.on_it}", step.apply(value).text)


def _two_steps(rng: random.Random, name: str) -> Program:
    x, first, second = rng.choice("xnk"), random_step(rng), random_step(rng)
    return _returning(
        name, (x,), f"{first.words(x)}, then {second.on_it}", second.apply(first.apply(Expression(x))).text
    )


def _fold(rng: random.Random, name: str) -> Program:
    words, _, value = random_fold(rng, xs := rng.choice(("xs", "ns")))
    step = random_step(rng)
    return _returning(name, (xs,), f"{words}, then {step.on_it}", step.apply(value).text)


def _each(rng: random.Random, name: str) -> Program:
    xs, step = rng.choice(("xs", "ns")), random_step(rng)
    return _returning(
        name, (xs,), step.words(f"each of {xs}"), f"[{step.apply(Expression('v')).text} for v in {xs}]"
    )


def _keep(rng: random.Random, name: str) -> Program:
    xs, condition, step = rng.choice(("xs", "ns")), random_condition(rng), random_step(rng)
    kept = f"for v in {xs} if {condition.of('v')}"
    words, expression = rng.choice(
        (
            (f"keep each of {xs} {condition.words}", f"[v {kept}]"),
            (f"sum each of {xs} {condition.words}", f"sum(v {kept})"),
            (step.words(f"each of {xs} {condition.words}"), f"[{step.apply(Expression('v')).text} {kept}]"),
        )
    )
    return _returning(name, (xs,), words, expression)


def _choose(rng: random.Random, name: str) -> Program:
    x, condition, yes, no = rng.choice("xnk"), random_condition(rng), random_step(rng), random_step(rng)
    return _returning(
        name,
        (x,),
        f"{yes.words(x)} if {x} is {condition.words}, else {no.on_it}",
        f"{yes.apply(Expression(x)).text} if {condition.of(x)} else {no.apply(Expression(x)).text}",
    )


KINDS: tuple[Callable[[random.Random, str], Program], ...] = (
    _one_step,
    _pair,
    _two_steps,
    _fold,
    _each,
    _keep,
    _choose,
)
