"""Experiments: lab recovery and lab gains on a run, lab topology on recipes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from kascade.commands.output import AsJson, console, emit
from kascade.commands.results import RunArgument
from kascade.errors import Fault, UserError
from kascade.lab.settings import ARMS, Arm, RaceSettings

DEFAULTS = RaceSettings()
ARM_NAMES = ", ".join(ARMS)
Rates = Annotated[
    list[str] | None, typer.Option("--rate", help="ARM=LEARNING_RATE (repeatable); else the recipe's.")
]
ScoreTasks = Annotated[int, typer.Option(min=1, help="Tasks a benchmark in a score.")]
KeepWeight = Annotated[
    float, typer.Option(min=0, help="Prompts of kept domains to each one of the lost domains.")
]


def register(app: typer.Typer) -> None:
    lab = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    lab.callback()(_lab)
    lab.command("recovery")(recovery)
    lab.command("gains")(gains)
    lab.command("topology")(topology)
    app.add_typer(lab, name="lab", hidden=True)


def _lab() -> None:
    """Experiments on the folder of a finished run, and races of recipes."""


def recovery(
    run: RunArgument,
    *,
    stage: Annotated[str | None, typer.Option(help="A stage that regressed. Default: the worst one.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = ",".join(
        map(str, DEFAULTS.seeds)
    ),
    steps: Annotated[int, typer.Option(min=1, help="Updates of each arm.")] = DEFAULTS.steps,
    score_every: Annotated[int, typer.Option(min=1, help="Updates between scores.")] = DEFAULTS.score_every,
    arms: Annotated[str, typer.Option(help=f"Of {ARM_NAMES}.")] = ",".join(DEFAULTS.arms),
    rates: Rates = None,
    tasks: ScoreTasks = DEFAULTS.validation_tasks,
    samples: Annotated[int, typer.Option(min=1, help="Answers a task.")] = DEFAULTS.validation_samples,
    prompts: Annotated[int | None, typer.Option(min=1, help="A step; else as the recovery.")] = None,
    rollouts: Annotated[int | None, typer.Option(min=2, help="A prompt; else as the recovery.")] = None,
    keep_weight: KeepWeight = DEFAULTS.keep_weight,
    out: Annotated[Path | None, typer.Option(help="Folder; RUN/lab/recovery by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Race MOPD, GRPO and SFT from a regressed checkpoint; the same command continues an interrupted race.

    Example: kascade lab recovery runs/own --seeds 0,1,2
    """
    from kascade.recipe.run_recipe import read_run_recipe

    faults: list[Fault] = []
    settings = RaceSettings(
        arms=_arms(arms, faults),
        seeds=_seeds(seeds, faults),
        learning_rates=_rates(rates or [], faults),
        steps=steps,
        score_every=score_every,
        validation_tasks=tasks,
        validation_samples=samples,
        prompts_per_step=prompts,
        rollouts_per_prompt=rollouts,
        keep_weight=keep_weight,
    )
    if faults:
        raise UserError(faults)
    read_run_recipe(run)
    from kascade.lab.page import markdown
    from kascade.lab.race import run_recovery_race

    folder = out or run / "lab" / "recovery"
    race = run_recovery_race(run, folder, settings, stage=stage, announce=_silent if as_json else _announce)
    if as_json:
        emit(race.model_dump(mode="json"))
    else:
        typer.echo(f"{markdown(race)}\n{folder / 'recovery.html'}")


def gains(
    run: RunArgument,
    *,
    tasks: Annotated[int, typer.Option(min=2, help="Test tasks per benchmark.")] = 400,
    samples: Annotated[int, typer.Option(min=1, help="Answers per task.")] = 4,
    stage: Annotated[list[str] | None, typer.Option(help="Measure only this stage (repeatable).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; RUN/lab/gains by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each stage raised in its own domains; the same command continues an interrupted one.

    Example: kascade lab gains runs/own
    """
    from kascade.recipe.run_recipe import read_run_recipe

    read_run_recipe(run)
    from kascade.lab.gains import markdown, measure_gains

    folder = out or run / "lab" / "gains"
    announce = _silent if as_json else _announce
    found = measure_gains(run, folder, tasks=tasks, samples=samples, stages=stage or (), announce=announce)
    if as_json:
        emit([gain.model_dump(mode="json") for gain in found])
    else:
        typer.echo(f"{markdown(found)}\n{folder / 'gains.md'}")


def topology(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Presets or recipe files, the first one is compared with. Default: both shipped."
        ),
    ] = None,
    *,
    scale: Annotated[str, typer.Option(help="A scale that all recipes have; empty: none.")] = "race",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model to start from.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    tasks: ScoreTasks = 200,
    samples: Annotated[int, typer.Option(min=1, help="Answers per task.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the race.")] = Path("runs/lab-topology"),
    as_json: AsJson = False,
) -> None:
    """Race orders of stages with equal budgets; the same command continues an interrupted race.

    Example: kascade lab topology quickstart specialists --seeds 0,1,2
    """
    from kascade.lab.topology_results import TopologySettings
    from kascade.recipe.load import load_recipe

    faults: list[Fault] = []
    settings = TopologySettings(seeds=_seeds(seeds, faults), tasks=tasks, samples=samples)
    if faults:
        raise UserError(faults)
    sources = recipes or ["quickstart", "specialists"]
    loaded = [load_recipe(source, model=model, scale=scale or None) for source in sources]
    from kascade.lab.topology import race_topologies
    from kascade.lab.topology_page import markdown, write_race

    raced = {recipe.name: recipe for recipe in loaded}
    race = race_topologies(raced, out, settings, announce=_silent if as_json else _announce)
    write_race(out, race)
    if as_json:
        emit(race.model_dump(mode="json"))
    else:
        typer.echo(f"{markdown(race)}\n{out / 'topology.md'}")


def _announce(line: str) -> None:
    console().print(line, markup=False, highlight=False)


def _silent(line: str) -> None:
    del line


def _arms(given: str, faults: list[Fault]) -> tuple[Arm, ...]:
    named = [name.strip() for name in given.split(",")]
    if unknown := [name for name in named if name not in ARMS]:
        faults.append(Fault("--arms", f"no such arm: {', '.join(unknown)}", ARM_NAMES))
    return tuple(arm for arm in ARMS if arm in named)


def _seeds(given: str, faults: list[Fault]) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(seed) for seed in given.split(",")))
    except ValueError:
        faults.append(Fault("--seeds", f"{given!r} is not a list of whole numbers", "0,1,2"))
        return ()


def _rates(given: list[str], faults: list[Fault]) -> dict[Arm, float]:
    rates: dict[Arm, float] = {}
    for pair in given:
        name, _, number = pair.partition("=")
        arm = next((arm for arm in ARMS if arm == name), None)
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if arm is None or not 0 < rate < math.inf:
            faults.append(
                Fault(f"--rate {pair}", "not a learning rate of an arm", f"ARM=RATE of {ARM_NAMES}")
            )
        else:
            rates[arm] = rate
    return rates
