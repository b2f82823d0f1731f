"""The components of a cascade without a model (see `toy_library`), in the shape of the shipped ones."""

from typing import NamedTuple

from components.image import step_component
from components.keep import keep
from pipelines.cascade import Steps


@step_component
def preflight(
    *,
    run: str,
    id: str,
    compiled: str,
    recipe: str,
    model: str,
    data: str,
    scale: str,
    budget: str,
    overrides: str,
    start_from: str,
    stages: str,
) -> NamedTuple("Begun", [("base", str), ("run", str), ("revision", str)]):
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "preflight"):
        import toy_library as toy

        toy.act(run, "preflight")
        return toy.make_checkpoint(run, "base", "train"), run, "compiled"


@step_component
def train(run: str, stage: str, parent: str, fingerprint: str) -> str:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.train"):
        import toy_library as toy

        toy.act(run, f"{stage}.train", parent=toy.name_of(parent))
        return toy.make_checkpoint(run, stage, "train")


@step_component
def evaluate(*, run: str, stage: str, attempt: str, checkpoint: str, parent: str, fingerprint: str) -> None:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.{attempt}.evaluate"):
        import toy_library as toy

        toy.act(run, f"{stage}.{attempt}.evaluate", checkpoint=toy.name_of(checkpoint))


@step_component
def verdict(*, run: str, stage: str, attempt: str, checkpoint: str, parent: str, fingerprint: str) -> bool:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.{attempt}.verdict"):
        import toy_library as toy

        toy.act(run, f"{stage}.{attempt}.verdict", checkpoint=toy.name_of(checkpoint))
        return f"{stage}.{attempt}" in toy.read_script(run).get("regressed", [])


@step_component
def recover(*, run: str, stage: str, round: int, checkpoint: str, parent: str, fingerprint: str) -> str:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.recover-{round}"):
        import toy_library as toy

        toy.act(run, f"{stage}.recover-{round}", checkpoint=toy.name_of(checkpoint))
        return toy.make_checkpoint(run, stage, f"recover-{round}")


@step_component
def settle(run: str, stage: str, candidate: str, parent: str, fingerprint: str) -> str:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.settle"):
        import toy_library as toy

        toy.act(run, f"{stage}.settle", candidate=toy.name_of(candidate), parent=toy.name_of(parent))
        return candidate


@step_component
def finish(run: str, checkpoint: str) -> str:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "finish"):
        from pathlib import Path

        from kascade.storage.files import write_json
        from kascade.storage.layout import RunLayout

        write_json(RunLayout(Path(run)).final, {"final_checkpoint": checkpoint})
        return checkpoint


@step_component
def launch(*, run: str, stage: str, attempt: str, checkpoint: str, parent: str, fingerprint: str) -> str:
    raise NotImplementedError("these recipes stay on one node")


@step_component
def report(run: str, id: str) -> str:
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "report"):
        from pathlib import Path

        import toy_library as toy

        toy.act(run, "report")
        Path(run, "report.html").write_text("<p>done</p>")
        return str(Path(run, "report.html"))


TOY_STEPS = Steps(preflight, train, evaluate, verdict, recover, launch, keep, settle, finish, report)
