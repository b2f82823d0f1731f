"""Where the steps of a cascade run on a cluster: pods, jobs of several nodes, storage, time limits.

All of it is ignored on one machine, where the same pipeline runs in processes. Nothing here changes weights,
so no part of it enters a checkpoint's key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.parts import Name, Part

# Forms of Kubernetes: quantities, object names (RFC 1123), label keys, environment variables.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]
RunsAs = Literal["inline", "trainjob", "rayjob"]


class Toleration(Part):
    """A taint that the pods put up with, as Kubernetes has it."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _operator_and_value_agree(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise CrossCheckError([Problem(("value",), "Exists compares no value", remedy="take it out")])
        if self.operator == "Equal" and self.key is None:
            raise CrossCheckError([Problem(("key",), "Equal needs a key", remedy="name the taint's key")])
        return self


class NodeTerm(Part):
    """One condition on a node's labels."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[str, ...] = ()
    weight: int | None = Field(
        None, ge=1, le=100, description="a preference of this weight; None: the node must fulfil it"
    )


class SecretVariable(Part):
    """One key of a secret as an environment variable; only the reference is ever written down."""

    secret: ObjectName
    key: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    variable: VariableName
    optional: bool = False


class Volume(Part):
    """A persistent volume claim and where it is mounted."""

    claim: ObjectName
    path: MountPath
    sub_path: str = ""


class Retries(Part):
    """How often a failed step is tried again; a step that is tried again continues where it stopped."""

    count: int = Field(0, ge=0)
    backoff_s: PositiveInt = Field(60, description="wait before the first retry")
    factor: float = Field(2.0, ge=1, description="each wait is this many times the one before")
    max_backoff_s: PositiveInt = 3600


class Placement(Part):
    """The pods of a stage's steps: what they get, where they may run, how long."""

    image: str | None = Field(None, description="None: that of the whole cascade")
    accelerator: LabelKey = Field("nvidia.com/gpu", description="the resource's name")
    accelerators: int = Field(0, ge=0, description="a node")
    cpu: Quantity = Field("2", description="requested, and the limit")
    memory: Quantity = Field("8Gi", description="requested, and the limit")
    shared_memory: Quantity | None = Field(
        None, description="size of /dev/shm, within `memory`; None: the container runtime's (often 64 MiB)"
    )
    node_selector: dict[LabelKey, str] = Field(default_factory=dict, description="labels a node must have")
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[NodeTerm, ...] = Field((), description="conditions on nodes, must or prefer")
    secrets: tuple[SecretVariable, ...] = ()
    volumes: tuple[Volume, ...] = ()
    timeout_s: PositiveInt | None = Field(None, description="a step is ended after this time; None: never")
    retries: Retries = Retries()
    caching: bool = Field(
        True, description="take a finished step's result when nothing it depends on changed"
    )
    nodes: PositiveInt = Field(1, description="pods that train together")
    runs_as: Literal["auto", "inline", "trainjob", "rayjob"] = Field(
        "auto",
        description="inline: in the step's own pod; trainjob: Kubeflow Trainer (SFT); rayjob: KubeRay (RL, "
        "distillation); auto: inline on one node, else the job for the kind of stage",
    )
    queue: ObjectName | None = Field(None, description="Kueue's local queue for jobs")
    deadline_s: PositiveInt | None = Field(
        None, description="a job of several nodes is ended after this time"
    )
    silence_s: PositiveInt = Field(
        1800, description="a job whose progress stands still for this long, and is not queued, has failed"
    )
    ttl_s: PositiveInt = Field(3600, description="a finished Ray cluster is kept this long, for its logs")

    @model_validator(mode="after")
    def _nodes_and_shape_agree(self) -> Placement:
        if self.runs_as == "inline" and self.nodes > 1:
            what = f"{self.nodes} nodes cannot be one pod"
            raise CrossCheckError([Problem(("runs_as",), what, "auto, trainjob, rayjob; or nodes: 1")])
        return self


class Cluster(Part):
    """Everything about the cluster. Stages take `default`, with the fields named under `stages` replaced."""

    image: str | None = Field(None, description="image of every step; None: that of this version of Kascade")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[ObjectName, ...] = ()
    service_account: ObjectName = Field(
        "kascade-runner", description="of jobs' pods, which need no right in the API"
    )
    storage: Volume = Field(
        Volume(claim="kascade-runs", path="/kascade"), description="shared by all pods; runs lie in PATH/runs"
    )
    secrets: tuple[SecretVariable, ...] = Field((), description="for every pod, beside its stage's")
    volumes: tuple[Volume, ...] = Field((), description="for every pod, beside its stage's")
    trainer_runtime: ObjectName = Field("torch-distributed", description="Trainer's ClusterTrainingRuntime")
    ray_version: str = Field("2.60.0", description="version of Ray in the image")
    active_deadline_s: PositiveInt | None = Field(None, description="the whole pipeline is ended after this")
    keep_finished_s: PositiveInt | None = Field(
        None, description="a finished pipeline's pods are removed after this time; None: as the cluster does"
    )
    light: Placement = Field(
        Placement(cpu="1", memory="4Gi"), description="steps without a model: verdicts, settling, the report"
    )
    default: Placement = Placement()
    stages: dict[Name, Placement] = Field(default_factory=dict, description="by stage, over `default`")

    @model_validator(mode="after")
    def _stages_are_complete(self) -> Cluster:
        """Fill what a stage does not say from `default`: a written recipe is read without a rule."""
        complete = {
            name: self.default.model_copy(update={f: getattr(own, f) for f in own.model_fields_set})
            for name, own in self.stages.items()
        }
        object.__setattr__(self, "stages", complete)
        return self

    def placement(self, stage: str) -> Placement:
        """Of a stage; `base`, whose exams come first, has the default."""
        return self.stages.get(stage, self.default)

    def shape_of(self, stage: str, kind: str) -> RunsAs:
        """How a stage's training runs, `auto` decided."""
        placement = self.placement(stage)
        if placement.runs_as != "auto":
            return placement.runs_as
        if placement.nodes == 1:
            return "inline"
        return "trainjob" if kind == "sft" else "rayjob"
