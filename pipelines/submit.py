"""A recipe on a cluster: its pipeline uploaded once a content, and a run of it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kascade.errors import Fault, UserError
from kascade.recipe.checks import nearest
from kascade.recipe.load import LoadedRecipe
from pipelines.literal import ALLOWED, FROM_PEOPLE, in_json
from pipelines.remote import KubeflowApi, all_pages, equals

JSON_FIELDS = ("overrides", "data")
MAX_PARAMETER_BYTES = 10_000  # Kubeflow's limit for all parameters of a run together


@dataclass(frozen=True, slots=True)
class Package:
    """A compiled pipeline. digest: short hash of its bytes; parameters: type and default by name."""

    path: Path
    name: str
    description: str
    digest: str
    parameters: Mapping[str, Mapping[str, Any]]

    @property
    def version_name(self) -> str:
        return f"{self.name}-{self.digest}"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """fresh: whether this call uploaded it, or found it there."""

    pipeline_id: str
    version_id: str
    version_name: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that was created. link: its page, for a person."""

    run_id: str
    name: str
    link: str
    version: Uploaded


def build_package(loaded: LoadedRecipe, folder: Path, name: str | None = None) -> Package:
    """Compile a recipe into `folder`. name: of the pipeline; None: the recipe's."""
    from pipelines.compile import compile_recipe

    path = compile_recipe(loaded.recipe, folder / "pipeline.yaml", scales=loaded.scales)
    data = path.read_bytes()
    spec = next(yaml.load_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return Package(
        path=path,
        name=name or loaded.recipe.name,
        description=loaded.recipe.description,
        digest=hashlib.sha256(data).hexdigest()[:12],
        parameters=spec["root"].get("inputDefinitions", {}).get("parameters", {}),
    )


def check_parameters(package: Package, given: Mapping[str, str]) -> dict[str, Any]:
    """Values of the run form, in the types that the pipeline wants. Raises UserError with every fault."""
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, text in given.items():
        definition = package.parameters.get(name)
        if definition is None:
            allowed = ", ".join(package.parameters)
            hint = nearest(name, list(package.parameters))
            faults.append(Fault(f"--param {name}", "the pipeline has no such parameter", allowed, hint))
            continue
        try:
            values[name] = _typed(_literal(name, text), str(definition["parameterType"]))
        except ValueError as error:
            faults.append(Fault(f"--param {name}", str(error)))
    size = sum(len(f"{name}{value}".encode()) for name, value in values.items())
    if size > MAX_PARAMETER_BYTES:
        what = f"the parameters have {size:,} bytes together"
        remedy = "write long overrides into the recipe"
        faults.append(Fault("--param", what, f"at most {MAX_PARAMETER_BYTES:,}", remedy))
    if faults:
        raise UserError(faults)
    return values


def _literal(name: str, text: str) -> str:
    """A value as a step will see it. Raises ValueError where a cluster would change it on the way."""
    safe = in_json(text) if name in JSON_FIELDS and text.lstrip().startswith("{") else text
    if FROM_PEOPLE.search(safe):
        raise ValueError(f"{text!r} would be changed on its way to a step; allowed: {ALLOWED}")
    return safe


def _typed(text: str, kind: str) -> Any:
    """Raises ValueError."""
    if kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if kind.startswith("NUMBER"):
        number = float(text)
        return int(number) if kind.endswith("INTEGER") else number
    return text


def upload(client: Any, endpoint: KubeflowApi, package: Package, *, newest: bool = False) -> Uploaded:
    """The package as a version of its pipeline, named by content: the same recipe again uploads nothing.

    newest: it must be the version that schedules follow, so one that later versions hide is uploaded again.
    """
    pipeline_id = _pipeline(client, endpoint, package)
    versions = list(all_pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id))
    pattern = re.compile(rf"{re.escape(package.version_name)}(-\d+)?")
    same = [version for version in versions if pattern.fullmatch(version.display_name)]
    last = max(versions, key=lambda version: version.created_at, default=None)
    found = next((version for version in same if version is last), None)
    if found is None and same and not newest:
        found = same[0]
    if found is not None:
        return Uploaded(pipeline_id, found.pipeline_version_id, found.display_name, False)
    name = f"{package.version_name}-{len(same) + 1}" if same else package.version_name
    made = client.upload_pipeline_version(
        str(package.path), pipeline_version_name=name, pipeline_id=pipeline_id
    )
    return Uploaded(pipeline_id, made.pipeline_version_id, name, True)


def _pipeline(client: Any, endpoint: KubeflowApi, package: Package) -> str:
    """The id of the pipeline of that name, which is created without a version when there is none."""
    from kfp_server_api import V2beta1Pipeline  # type: ignore[import-untyped]

    by_name = equals("display_name", package.name)
    pages = all_pages(client.list_pipelines, "pipelines", filter=by_name, namespace=endpoint.namespace)
    found = next((one for one in pages if one.display_name == package.name), None)
    if found is None:
        found = client._pipelines_api.pipeline_service_create_pipeline(  # the client itself only uploads
            pipeline=V2beta1Pipeline(
                display_name=package.name,
                name=re.sub(r"[^a-z0-9-]", "-", package.name),
                description=package.description,
                namespace=endpoint.namespace,
            )
        )
    return str(found.pipeline_id)


def experiment_id(client: Any, endpoint: KubeflowApi, name: str) -> str:
    """Of the experiment of that name, which is created when there is none."""
    return str(client.create_experiment(name=name, namespace=endpoint.namespace).experiment_id)


def submit(
    loaded: LoadedRecipe,
    endpoint: KubeflowApi,
    *,
    parameters: Mapping[str, str] | None = None,
    experiment: str | None = None,
    pipeline: str | None = None,
    run_name: str | None = None,
    service_account: str | None = None,
) -> Submitted:
    """Upload or find the recipe's pipeline, and start a run of exactly that version.

    experiment: None: that of the recipe's tracking. Raises UserError, ClusterError.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = build_package(loaded, Path(folder), pipeline)
        values = check_parameters(package, parameters or {})
        name = run_name or f"{package.name} {datetime.now(UTC):%Y-%m-%d %H:%M}"
        with endpoint.connect() as client:
            version = upload(client, endpoint, package)
            run = client.run_pipeline(
                experiment_id=experiment_id(
                    client, endpoint, experiment or loaded.recipe.tracking.experiment
                ),
                job_name=name,
                params=values,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=service_account,
            )
            link = endpoint.link(client, f"runs/details/{run.run_id}")
    return Submitted(str(run.run_id), name, link, version)
