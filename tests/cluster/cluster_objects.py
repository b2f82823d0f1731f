"""What the tests put onto the cluster before the manifests: secrets by hand, the operators' definitions."""

from __future__ import annotations

from typing import Any

from kascade.cluster.jobs import JobKind

SECRETS = {
    "kascade-database": ("user", "password"),
    "kascade-mlflow": ("user", "password", "signing-key"),
    "kascade-s3": ("access-key", "secret-key"),
}


def definition(kind: JobKind, schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD as the operator would bring it, as far as the launcher needs it."""
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
