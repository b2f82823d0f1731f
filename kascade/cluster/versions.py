"""Which version of a custom resource the cluster has, from the API's own description of itself."""

from __future__ import annotations

import json
from typing import Any

from kascade.cluster.jobs import TRAINJOB
from kascade.cluster.manifests import PATCH_FIELDS, TrainJobApi
from kascade.errors import Fault, UserError


def trainjob_api(client: Any) -> TrainJobApi:
    """What the cluster's TrainJob has. Anyone who may log in may read it. Raises UserError without Trainer.

    client: a `kubernetes.client.ApiClient`.
    """
    from kubernetes.client.exceptions import ApiException

    path = f"/openapi/v3/apis/{TRAINJOB.api_version}"
    try:
        answer = client.call_api(
            path, "GET", auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True
        )
    except ApiException as error:
        if error.status != 404:
            raise
        raise TRAINJOB.not_known() from error
    fields = _spec_fields(json.loads(answer.data))
    for field in PATCH_FIELDS:
        if field in fields:
            return TrainJobApi(field, "activeDeadlineSeconds" in fields)
    known = ", ".join(PATCH_FIELDS)
    what = "its TrainJob takes no changes to pods that this version of Kascade knows"
    raise UserError(Fault("cluster", what, known, "update Kascade, or Trainer to 2.0 or later"))


def _spec_fields(description: dict[str, Any]) -> set[str]:
    schemas = description.get("components", {}).get("schemas", {})
    for name, schema in schemas.items():
        if name.rpartition(".")[2] == TRAINJOB.kind:
            return set(schema.get("properties", {}).get("spec", {}).get("properties", {}))
    return set()
