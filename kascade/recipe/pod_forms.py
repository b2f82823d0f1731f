"""Forms of what a pod is made of, as Kubernetes takes them: what it would refuse hours later is refused here.

A label's value, an image or a mount that Kubernetes does not take fails only when the stage's pod is to
start, and an image of a wrong form leaves the pod waiting for good.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kascade.recipe.parts import formed

LONGEST_S = 2**31 - 1  # the longest deadline of a pod
Quantity = Annotated[
    str, formed(r"^[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?$", "a quantity such as 8, 500m or 8Gi")
]
ObjectName = Annotated[
    str, formed(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "lower-case letters, digits, - and .")
]
# Kubeflow names a pod's volume after its claim, so it must be a DNS label.
ClaimName = Annotated[
    str, formed(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "at most 63 lower-case letters, digits and -")
]
LabelKey = Annotated[
    str,
    formed(
        r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        "a label's key such as pool or nvidia.com/gpu",
    ),
]
LabelValue = Annotated[
    str,
    formed(r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", "at most 63 letters, digits, -, _ and ."),
]
VariableName = Annotated[str, formed(r"^[A-Za-z_][A-Za-z0-9_]*$", "a variable's name such as HF_TOKEN")]
SecretKey = Annotated[str, formed(r"^[A-Za-z0-9._-]{1,253}$", "letters, digits, -, _ and .")]
# REGISTRY:PORT/PATH:TAG@DIGEST, all but the path optional.
ImageName = Annotated[
    str,
    formed(
        r"^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        "an image such as registry.example.com/team/kascade:0.1.0",
    ),
]
# The run's folder lies under it and is handed from step to step as text: plain letters only.
FOLDER = "[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*"  # no dot in front: neither hidden nor the folder above
MountPath = Annotated[str, formed(rf"^(/{FOLDER})+$", "an absolute path of plain letters such as /kascade")]
SubPath = Annotated[
    str, formed(rf"^({FOLDER}(/{FOLDER})*)?$", "a relative path of plain letters, or nothing")
]
RayVersion = Annotated[str, formed(r"^[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.]*$", "a version such as 2.60.0")]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_S)]
