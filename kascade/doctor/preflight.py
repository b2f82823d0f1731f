"""The step before training: every check of the doctor, then the base model becomes a checkpoint."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from kascade.doctor.checks import NEEDS, examine
from kascade.doctor.graders import environments_of
from kascade.doctor.subject import Subject
from kascade.environments.isolation import isolation_of
from kascade.errors import Fault
from kascade.exams.tasks import exam_tasks
from kascade.guard.power import sight_table
from kascade.models.hub_folder import write_whole
from kascade.models.load import is_adapter
from kascade.models.long_context import with_long_context
from kascade.recipe.checks import BASE
from kascade.recipe.identity import data_digest, short_hash
from kascade.recipe.schema import Recipe
from kascade.run.context import Run, publish_checkpoint
from kascade.run.machine import machine
from kascade.storage.checkpoint import OUR_FILES
from kascade.storage.files import file_digest, read_json, write_json, write_text

log = logging.getLogger(__name__)

LICENSE = re.compile(r"^license:\s*([\w.+-]+)\s*$", re.MULTILINE)
HEAD = 4096  # characters of a README that may be its front matter
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def check_and_import(run: Run, job_faults: Callable[[Recipe], list[Fault]]) -> str:
    """Reference of the base checkpoint. Raises UserError with all errors found at once.

    job_faults: what keeps the jobs that the recipe asks for from being launched, asked by who knows clusters.
    """
    subject = Subject(
        run.recipe,
        out=run.layout.root,
        generated=True,
        fetch=True,
        generate=lambda benchmark: exam_tasks(run, benchmark),
        job_faults=job_faults,
    )
    with run.clock.section("grading"):
        found = examine(subject, NEEDS)
    for line in sight_table(found.falls, run.recipe.guard):
        log.info("%s", line)
    found.raise_errors()
    for warning in found.warnings:
        log.warning("%s", warning)
    isolation, _ = isolation_of(environments_of(run.recipe))
    for kind, how in isolation.items():
        log.info("untrusted %s are confined by %s", kind, how)
    noted = {
        "contamination": subject.contaminated,
        "isolation": isolation,
        "warnings": [str(one) for one in found.warnings],
        "visible_falls": {name: one.as_json() for name, one in found.falls.items()},
        "machine": machine(),
        "data": {path: f"sha256:{data_digest(path)}" for path in _paths(subject)},
        "license": license_of(subject.model_folder),
    }
    write_json(run.layout.preflight, noted)
    return import_base(run, subject.model_folder)


def _paths(subject: Subject) -> list[str]:
    """Where the rows of the recipe are."""
    return sorted({str(one.source.path) for one in subject.readings if one.source.path is not None})


def license_of(folder: Path) -> str | None:
    """The licence that a model's README names at its head, as the hub has it."""
    page = folder / "README.md"
    head = LICENSE.search(page.read_text(encoding="utf-8")[:HEAD]) if page.is_file() else None
    return head[1] if head else None


def import_base(run: Run, folder: Path) -> str:
    """The base model as a checkpoint of the run: a copy, so that what is done to the original stays there.

    A longer context that the recipe asks for goes into the copy's config. An adapter is merged into its base.
    """
    named = {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    files = sorted(path for path in named if path.name not in OUR_FILES)  # a checkpoint may be the model
    longer = run.recipe.model.long_context
    parts = [[path.name, file_digest(path)] for path in files]
    key = short_hash([*parts, longer.model_dump(mode="json")] if longer is not None else parts)
    if found := run.existing(f"{BASE}/train-{key}"):
        return found

    def write(target: Path) -> None:
        if is_adapter(folder):
            write_whole(folder, target)
        else:
            for path in files:
                shutil.copyfile(path, target / path.name)
        if longer is not None:
            config = with_long_context(read_json(target / "config.json"), longer)
            write_text(target / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")

    return publish_checkpoint(
        run, stage=BASE, attempt="train", key=key, parent=None, teachers={}, write=write
    )
