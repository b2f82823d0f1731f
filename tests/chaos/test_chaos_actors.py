"""A Ray actor is killed while it samples or is given weights, and so is the command that uses it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commotion import KILLS, SEED, SMALL, World
from toy_cascade import stage

pytest.importorskip("ray", reason="Ray is not installed: no actor was killed within a run")
pytestmark = pytest.mark.slow
STEPS = 3
ROUNDS = max(1, KILLS // 25)
STAGES = (
    stage("sft", "sft", "say_a", "say_b", steps=2, save_every=1),
    stage(
        "rl",
        "if_rl",
        "say_a",
        steps=STEPS,
        save_every=1,
        prompts_per_step=4,
        grpo=SMALL,
        workers={"samplers": 2},
    ),
)


@pytest.fixture(scope="module")
def spread_world(toy_environments: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("actors"), STAGES)


class Losing:
    """Ray, which kills a process as soon as the engine waits for work that was given out."""

    def __init__(self, ray: Any, victim: int) -> None:
        self.ray, self.victim = ray, victim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ray, name)

    def wait(self, *arguments: Any, **named: Any) -> Any:
        victim, self.victim = self.victim, 0
        if victim:
            os.kill(victim, signal.SIGKILL)
        return self.ray.wait(*arguments, **named)


def losing_actors(sampling: int, handover: int, *, whole: bool, struck: Path) -> Callable[[], None]:
    """Kill one actor in the `sampling`-th draw of answers, and one before the `handover`-th gift of weights.

    whole: the command itself in place of the first actor. struck: a file that gets a line per kill.
    """

    def arm() -> None:
        from kascade.actors.rollout_group import RayEngine

        sample, load = RayEngine.sample, RayEngine.load_weights
        counts = {"sample": 0, "load": 0}

        def chosen(engine: RayEngine, number: int) -> int:
            with struck.open("a") as file:
                file.write("struck\n")
            return os.getpid() if whole else engine.pids()[number % len(engine._actors)]

        def sampling_then(engine: RayEngine, *arguments: Any) -> Any:
            counts["sample"] += 1
            if counts["sample"] != sampling:
                return sample(engine, *arguments)
            ray = engine.ray
            engine.ray = Losing(ray, chosen(engine, sampling))
            try:
                return sample(engine, *arguments)
            finally:
                engine.ray = ray

        def loading_then(engine: RayEngine, *arguments: Any) -> Any:
            counts["load"] += bool(engine._actors)
            if engine._actors and counts["load"] == handover and not whole:
                os.kill(chosen(engine, handover), signal.SIGKILL)
            return load(engine, *arguments)

        RayEngine.sample, RayEngine.load_weights = sampling_then, loading_then  # type: ignore[method-assign]

    return arm


def test_lost_actors_and_a_lost_command_end_in_the_same_bits(spread_world: World, tmp_path: Path) -> None:
    rng, struck = random.Random(SEED), tmp_path / "struck"
    for number in range(ROUNDS):
        spread_world.begin_anew()
        struck.write_text("")
        moments = {"sampling": rng.randint(1, STEPS), "handover": 1}
        killed = spread_world.command(losing_actors(**moments, whole=True, struck=struck))
        assert killed == -signal.SIGKILL, spread_world.said
        ended = spread_world.command(losing_actors(1, 1, whole=False, struck=struck))
        assert ended == 0, (number, spread_world.said)
        assert not spread_world.differences(), number
        assert len(struck.read_text().splitlines()) >= 2, number
    print(f"{ROUNDS} rounds with actors: the command killed, an actor killed in the next try; the same bits")
