"""Where the steps of a cascade run on a cluster: pods, jobs of several nodes, storage, time limits.

All of it is ignored on one machine, where the same pipeline runs in processes. Nothing here changes weights,
so no part of it enters a checkpoint's key.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.methods import method_of
from kascade.recipe.parts import Name, Part
from kascade.recipe.pod_forms import (
    ClaimName,
    ImageName,
    LabelKey,
    LabelValue,
    MountPath,
    ObjectName,
    Quantity,
    RayVersion,
    Seconds,
    SecretKey,
    SubPath,
    VariableName,
)
from kascade.recipe.stages import StagePart

RunsAs = Literal["inline", "trainjob", "rayjob"]


class Toleration(Part):
    """A taint that the pods put up with, as Kubernetes has it."""

    key: LabelKey | None = Field(
        None, description="key of the taint; None with Exists: every taint [Kubernetes]"
    )
    operator: Literal["Equal", "Exists"] = Field(
        "Equal", description="how the taint is compared [Kubernetes]"
    )
    value: LabelValue | None = Field(None, description="value of the taint, with Equal [Kubernetes]")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="effect of the taint; None: every effect [Kubernetes]"
    )
    toleration_seconds: int | None = Field(
        None, ge=0, description="how long NoExecute is borne; None: for good [Kubernetes]"
    )

    @model_validator(mode="after")
    def _operator_and_value_agree(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise CrossCheckError([Problem(("value",), "Exists compares no value", remedy="take it out")])
        if self.operator == "Equal" and self.key is None:
            raise CrossCheckError([Problem(("key",), "Equal needs a key", remedy="name the taint's key")])
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            what = "a time is borne with the effect NoExecute alone"
            raise CrossCheckError([Problem(("toleration_seconds",), what, remedy="add effect: NoExecute")])
        return self


class NodeTerm(Part):
    """One condition on a node's labels."""

    key: LabelKey = Field(description="label of the node [Kubernetes]")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        "In", description="how the label is compared [Kubernetes]"
    )
    values: tuple[LabelValue, ...] = Field((), description="values to compare it with [Kubernetes]")
    weight: int | None = Field(
        None, ge=1, le=100, description="a preference of this weight; None: the node must fulfil it"
    )

    @model_validator(mode="after")
    def _operator_and_values_agree(self) -> NodeTerm:
        allowed = {
            **dict.fromkeys(("In", "NotIn"), ("one or more", len(self.values) >= 1)),
            **dict.fromkeys(("Exists", "DoesNotExist"), ("none", not self.values)),
            **dict.fromkeys(("Gt", "Lt"), ("one whole number", _is_one_number(self.values))),
        }
        wanted, holds = allowed[self.operator]
        if not holds:
            what = f"{self.operator} does not go with {list(self.values) or 'no values'}"
            raise CrossCheckError([Problem(("values",), what, wanted)])
        return self


def _is_one_number(values: tuple[str, ...]) -> bool:
    return len(values) == 1 and values[0].isascii() and values[0].isdigit()


class SecretVariable(Part):
    """One key of a secret as an environment variable; only the reference is ever written down."""

    secret: ObjectName = Field(description="name of the secret [Kubernetes]")
    key: SecretKey = Field(description="key inside the secret [Kubernetes]")
    variable: VariableName = Field(description="environment variable that gets the value")
    optional: bool = Field(False, description="start the pod where the secret is not there, too")


class Volume(Part):
    """A persistent volume claim and where it is mounted."""

    claim: ClaimName = Field(description="name of the PersistentVolumeClaim")
    path: MountPath = Field(description="where it is mounted in the pods")
    sub_path: SubPath = Field("", description="folder of the volume to mount; empty: all of it")


class Retries(Part):
    """How often a failed step is tried again; a step that is tried again continues where it stopped."""

    count: int = Field(0, ge=0, description="how often")
    backoff_s: Seconds = Field(60, description="wait before the first retry")
    factor: PositiveInt = Field(2, description="each wait is this many times the one before; a whole number")
    max_backoff_s: PositiveInt | None = Field(
        None, description="no longer used: the time for all tries follows from `timeout_s` and `count`"
    )


class Placement(Part):
    """The pods of a stage's steps: what they get, where they may run, how long."""

    image: ImageName | None = Field(None, description="None: that of the whole cascade")
    accelerator: LabelKey = Field("nvidia.com/gpu", description="the resource's name")
    accelerators: int = Field(0, ge=0, description="a node")
    cpu: Quantity = Field("2", description="requested, and the limit")
    memory: Quantity = Field("8Gi", description="requested, and the limit")
    shared_memory: Quantity | None = Field(
        None, description="size of /dev/shm, within `memory`; None: the container runtime's (often 64 MiB)"
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="labels a node must have"
    )
    tolerations: tuple[Toleration, ...] = Field(
        (), description="taints of nodes that the pods bear [Kubernetes]"
    )
    affinity: tuple[NodeTerm, ...] = Field((), description="conditions on nodes, must or prefer")
    secrets: tuple[SecretVariable, ...] = Field((), description="secrets that become environment variables")
    volumes: tuple[Volume, ...] = Field((), description="volumes that the pods mount")
    timeout_s: Seconds | None = Field(None, description="a step is ended after this time; None: never")
    retries: Retries = Field(Retries(), description="whether a pod that failed is started again")
    caching: bool | None = Field(
        None, description="no longer used: every step finds finished work by its key"
    )
    nodes: PositiveInt = Field(1, description="pods that train together")
    runs_as: Literal["auto", "inline", "trainjob", "rayjob"] = Field(
        "auto",
        description="inline: in the step's own pod; trainjob: Kubeflow Trainer (SFT); rayjob: KubeRay (RL, "
        "distillation); auto: inline on one node, else the job for the kind of stage",
    )
    queue: ObjectName | None = Field(None, description="Kueue's local queue for jobs")
    deadline_s: Seconds | None = Field(None, description="a job of several nodes is ended after this time")
    silence_s: Seconds = Field(
        1800, description="a job whose progress stands still for this long, and is not queued, has failed"
    )
    ttl_s: Seconds = Field(3600, description="a finished Ray cluster is kept this long, for its logs")

    @model_validator(mode="after")
    def _nodes_and_shape_agree(self) -> Placement:
        if self.runs_as == "inline" and self.nodes > 1:
            what = f"{self.nodes} nodes cannot be one pod"
            raise CrossCheckError([Problem(("runs_as",), what, "auto, trainjob, rayjob; or nodes: 1")])
        return self


def _over(default: Placement, own: Placement) -> Placement:
    return default.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})


class Cluster(Part):
    """Everything about the cluster. Stages take `default`, with the fields named under `stages` replaced."""

    image: ImageName | None = Field(
        None, description="image of every step; None: that of this version of Kascade"
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when nodes fetch the image [Kubernetes]"
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        (), description="secrets that hold the registry's keys [Kubernetes]"
    )
    service_account: ObjectName = Field(
        "kascade-runner", description="of jobs' pods, which need no right in the API"
    )
    restricted: bool = Field(
        True,
        description="pods of jobs meet Pod Security `restricted` (no root, no privileges); false: for an "
        "image that runs as root",
    )
    storage: Volume = Field(
        Volume(claim="kascade-runs", path="/kascade"),
        description="shared by all pods; runs are stored in PATH/runs",
    )
    secrets: tuple[SecretVariable, ...] = Field((), description="for every pod, beside its stage's")
    volumes: tuple[Volume, ...] = Field((), description="for every pod, beside its stage's")
    trainer_runtime: ObjectName = Field("torch-distributed", description="Trainer's ClusterTrainingRuntime")
    ray_version: RayVersion = Field("2.60.0", description="version of Ray in the image")
    active_deadline_s: Seconds | None = Field(None, description="the whole pipeline is ended after this")
    keep_finished_s: Seconds | None = Field(
        None,
        description="a finished pipeline's pods and their logs are removed after this time; None: as the "
        "cluster does (Kubeflow 2.17: one hour)",
    )
    light: Placement = Field(
        Placement(cpu="1", memory="4Gi"), description="steps without a model: verdicts, settling, the report"
    )
    default: Placement = Field(Placement(), description="pods of stages that `stages` does not name")
    stages: dict[Name, Placement] = Field(default_factory=dict, description="by stage, over `default`")
    benchmarks: Placement | None = Field(
        None,
        description="pods of all benchmarks and of the end check, over `default`; None: a stage's benchmarks "
        "have the stage's pods, the others `default`",
    )

    @model_validator(mode="after")
    def _parts_are_complete(self) -> Cluster:
        """Fill what a part does not say from `default`: a written recipe is read without a rule."""
        complete = {name: _over(self.default, own) for name, own in self.stages.items()}
        object.__setattr__(self, "stages", complete)
        if self.benchmarks is not None:
            one_pod = self.default.model_copy(update={"nodes": 1, "runs_as": "inline"})
            object.__setattr__(self, "benchmarks", _over(one_pod, self.benchmarks))
        return self

    @model_validator(mode="after")
    def _benchmarks_are_one_pod(self) -> Cluster:
        own = self.benchmarks
        for field, wanted in (("nodes", (1,)), ("runs_as", ("inline", "auto"))):
            if own is not None and (value := getattr(own, field)) not in wanted:
                what = f"{value} will not do: a benchmark runs in one pod"
                allowed = ", ".join(str(one) for one in wanted)
                raise CrossCheckError([Problem(("benchmarks", field), what, allowed)])
        return self

    @model_validator(mode="after")
    def _one_volume_a_path(self) -> Cluster:
        """Kubernetes refuses a pod that mounts two volumes at one path."""
        parts = {"light": self.light, "default": self.default, **self.stages}
        if self.benchmarks is not None:
            parts["benchmarks"] = self.benchmarks
        for where, placement in parts.items():
            mounted = dict.fromkeys((self.storage, *self.volumes, *placement.volumes))
            paths = [volume.path for volume in mounted]
            if twice := sorted({path for path in paths if paths.count(path) > 1}):
                what = f"pods of {where} would mount two volumes at {', '.join(twice)}"
                raise CrossCheckError([Problem(("volumes",), what, remedy="give each a path of its own")])
        return self

    def placement(self, stage: str) -> Placement:
        """Of a stage; `base`, whose exams come first, has the default."""
        return self.stages.get(stage, self.default)

    def benchmark_pods(self, stage: str) -> Placement:
        """Of the benchmarks that follow a stage; of `base`: of its benchmarks, and of the end check."""
        return self.benchmarks or self.placement(stage)

    def shape_of(self, stage: StagePart) -> RunsAs:
        """How a stage's training runs, `auto` decided."""
        placement = self.placement(stage.name)
        if placement.runs_as != "auto":
            return placement.runs_as
        if placement.nodes == 1:
            return "inline"
        return method_of(stage).cluster_job
