"""What custom resources must look like, as far as jobs of ours use them; every unknown key is an error.

Facts: trainer v2.0.0, v2.1.0 and v2.3.0, manifests/base/crds; kuberay (August 2026), ray.io_rayjobs.yaml.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAMES = {"type": "array", "items": TEXT}
ANY_OBJECT: Schema = {"type": "object"}


def closed(required: str = "", **fields: Any) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(item: Any) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


STRINGS: Schema = {"type": "object", "additionalProperties": TEXT}
RESOURCES = closed(requests=STRINGS, limits=STRINGS)
ENV = closed("name", name=TEXT, value=TEXT, valueFrom=ANY_OBJECT)
MOUNT = closed("name mountPath", name=TEXT, mountPath=TEXT, subPath=TEXT, readOnly=FLAG)
VOLUME = closed("name", name=TEXT, persistentVolumeClaim=ANY_OBJECT, emptyDir=ANY_OBJECT)
TOLERATION = closed(key=TEXT, operator=TEXT, value=TEXT, effect=TEXT, tolerationSeconds=COUNT)
OWNER = closed(
    "apiVersion kind name uid", apiVersion=TEXT, kind=TEXT, name=TEXT, uid=TEXT, blockOwnerDeletion=FLAG
)
METADATA = closed(
    "name", name={"type": "string", "maxLength": 63}, labels=STRINGS, ownerReferences=many(OWNER)
)
CONTAINER_PATCH = closed("name", name=TEXT, env=many(ENV), volumeMounts=many(MOUNT))
POD_2_0 = {
    "serviceAccountName": TEXT,
    "nodeSelector": STRINGS,
    "tolerations": many(TOLERATION),
    "volumes": many(VOLUME),
    "initContainers": many(CONTAINER_PATCH),
    "containers": many(CONTAINER_PATCH),
    "schedulingGates": many(ANY_OBJECT),
}
POD_2_1 = {**POD_2_0, "affinity": ANY_OBJECT, "imagePullSecrets": many(closed("name", name=TEXT))}
TARGETS = many(closed("name", name=TEXT))
POD_2_2 = {
    **POD_2_1,
    "securityContext": ANY_OBJECT,
    "containers": many(
        closed("name", name=TEXT, env=many(ENV), volumeMounts=many(MOUNT), securityContext=ANY_OBJECT)
    ),
}
JOB_PATCH = closed("name", name=TEXT, template=closed(spec=closed(template=closed(spec=closed(**POD_2_2)))))
RUNTIME_PATCH = closed(template=closed(spec=closed(replicatedJobs=many(JOB_PATCH))))
PATCHES: dict[str, Schema] = {
    "podSpecOverrides": many(closed("targetJobs", targetJobs=TARGETS, **POD_2_0)),
    "podTemplateOverrides": many(closed(targetJobs=TARGETS, metadata=ANY_OBJECT, spec=closed(**POD_2_1))),
    "runtimePatches": many(closed("manager", manager=TEXT, trainingRuntimeSpec=RUNTIME_PATCH)),
}
TRAINER = closed(
    image=TEXT,
    command=NAMES,
    args=NAMES,
    env=many(ENV),
    numNodes={"type": "integer", "minimum": 1},
    resourcesPerNode=RESOURCES,
    numProcPerNode={"type": "integer", "minimum": 1},
)


def trainjob(patches: str, *, deadline: bool) -> Schema:
    """A TrainJob of one of Trainer's versions."""
    limit = {"activeDeadlineSeconds": {"type": "integer", "minimum": 1}} if deadline else {}
    spec = closed(
        "runtimeRef",
        runtimeRef=closed("name", apiGroup=TEXT, kind=TEXT, name=TEXT),
        initializer=ANY_OBJECT,
        trainer=TRAINER,
        suspend=FLAG,
        managedBy=TEXT,
        **{patches: PATCHES[patches]},
        **limit,
    )
    api = {"const": "trainer.kubeflow.org/v1alpha1"}
    return closed(
        "apiVersion kind metadata spec",
        apiVersion=api,
        kind={"const": "TrainJob"},
        metadata=METADATA,
        spec=spec,
    )


RAY_CONTAINER = closed(
    "name image",
    name=TEXT,
    image=TEXT,
    imagePullPolicy=TEXT,
    resources=RESOURCES,
    env=many(ENV),
    volumeMounts=many(MOUNT),
    securityContext=ANY_OBJECT,
)
RAY_POD = closed(
    "containers",
    securityContext=ANY_OBJECT,
    serviceAccountName=TEXT,
    containers=many(RAY_CONTAINER),
    volumes=many(VOLUME),
    nodeSelector=STRINGS,
    tolerations=many(TOLERATION),
    affinity=ANY_OBJECT,
    imagePullSecrets=many(closed("name", name=TEXT)),
)
TEMPLATE = closed("spec", spec=RAY_POD)
RAY_WORKERS = closed(
    "groupName maxReplicas minReplicas template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=STRINGS,
    template=TEMPLATE,
)
RAYJOB_SPEC = closed(
    "rayClusterSpec",
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    rayClusterSpec=closed(
        "headGroupSpec",
        rayVersion=TEXT,
        authOptions=closed(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
        headGroupSpec=closed("template", rayStartParams=STRINGS, template=TEMPLATE),
        workerGroupSpecs=many(RAY_WORKERS),
    ),
)
RAYJOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={
        **METADATA,
        "properties": {**METADATA["properties"], "name": {"type": "string", "maxLength": 47}},
    },
    spec=RAYJOB_SPEC,
)
