"""The components of a cascade without a model (see `toy_library`), in the shape of the shipped ones."""

from typing import NamedTuple

from kfp import dsl

from components.image import step_component
from pipelines.cascade import Steps


@step_component
def consider(
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
    approve: str,
) -> bool:
    from kascade.run.process import step_process

    with step_process(run, "consider"):
        import toy_library as toy

        toy.act(run, "consider")
        return toy.has_news(run)


@step_component
def examine(run: str, id: str) -> bool:
    from kascade.run.process import step_process

    with step_process(run, "examine"):
        import toy_library as toy

        toy.act(run, "examine")
        return False


@step_component
def unchanged(run: str, id: str) -> None:
    from kascade.run.process import step_process

    with step_process(run, "unchanged"):
        import toy_library as toy

        toy.act(run, "unchanged")


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
    approve: str,
) -> NamedTuple("Begun", [("base", str), ("run", str)]):
    from kascade.run.process import step_process

    with step_process(run, "preflight"):
        import toy_library as toy

        toy.act(run, "preflight")
        toy.take_word(run, approve)
        toy.left_out(run, stages)
        return toy.known(run, "base", "train") or toy.make_checkpoint(run, "base", "train"), run


@step_component
def begin(run: str, stage: str, parent: str) -> bool:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.begin"):
        import toy_library as toy

        toy.act(run, f"{stage}.begin")
        return toy.begins(run, stage, parent)


@step_component
def skip(run: str, stage: str, parent: str) -> None:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.skip"):
        import toy_library as toy

        toy.act(run, f"{stage}.skip")


@step_component
def train(run: str, stage: str, parent: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.train"):
        import toy_library as toy

        if found := toy.known(run, stage, "train"):
            return found
        toy.act(run, f"{stage}.train", parent=toy.name_of(parent))
        return toy.make_checkpoint(run, stage, "train")


@step_component
def evaluate(run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> bool:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.{attempt}.evaluate"):
        import toy_library as toy

        if not toy.judged(run, stage, attempt).exists():
            toy.act(run, f"{stage}.{attempt}.evaluate", checkpoint=toy.name_of(checkpoint))
            toy.judged(run, stage, attempt).touch()
        return toy.regressed(run, stage, attempt) and toy.begins(
            run, toy.following(stage, attempt), checkpoint
        )


@step_component
def verdict(*, run: str, stage: str, attempt: str, parent: str, reasons: dsl.Output[dsl.Markdown]) -> None:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.{attempt}.verdict"):
        from pathlib import Path

        import toy_library as toy

        toy.act(run, f"{stage}.{attempt}.verdict")
        Path(reasons.path).write_text("because", encoding="utf-8")


@step_component
def recover(run: str, stage: str, round: int, checkpoint: str, parent: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.recover-{round}"):
        import toy_library as toy

        if found := toy.known(run, stage, f"recover-{round}"):
            return found
        toy.act(run, f"{stage}.recover-{round}", checkpoint=toy.name_of(checkpoint))
        return toy.make_checkpoint(run, stage, f"recover-{round}")


@step_component
def settle(run: str, stage: str, parent: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.settle"):
        import toy_library as toy

        accepted = parent if toy.is_held_up(run, stage) else toy.tried(run, stage)[-1]
        toy.act(run, f"{stage}.settle", accepted=toy.name_of(accepted), parent=toy.name_of(parent))
        return accepted


@step_component
def retain(run: str, checkpoint: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, "retain"):
        return checkpoint


@step_component
def finish(run: str, checkpoint: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, "finish"):
        from pathlib import Path

        import toy_library as toy

        from kascade.storage.run_folder import RunFolder

        if not toy.waits(run):
            RunFolder(Path(run)).write_final(checkpoint)
        return checkpoint


@step_component
def launch(run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> str:
    raise NotImplementedError("these recipes stay on one node")


@step_component
def report(run: str, id: str) -> str:
    from kascade.run.process import step_process

    with step_process(run, "report"):
        from pathlib import Path

        import toy_library as toy

        toy.act(run, "report")
        Path(run, "report.html").write_text("<p>done</p>")
        return str(Path(run, "report.html"))


TOY_STEPS = Steps(
    *(
        consider,
        examine,
        unchanged,
        preflight,
        begin,
        skip,
        train,
        evaluate,
        verdict,
        recover,
        launch,
        settle,
    ),
    *(retain, finish, report),
)
