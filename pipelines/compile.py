"""Recipe in, pipeline package out: the YAML that a cluster runs and that runs here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from kfp import compiler
from pydantic import TypeAdapter, ValidationError

from components.image import IMAGE
from kascade.errors import Fault, UserError
from kascade.recipe.identity import short_hash
from kascade.recipe.pod_forms import ImageName
from kascade.recipe.run_form import pack, packed_text
from kascade.recipe.schema import Recipe
from pipelines.canonical import canonicalise
from pipelines.cascade import Steps, build_cascade
from pipelines.literal import refuse_filled_in
from pipelines.run_form import offer_scales


def compile_recipe(
    recipe: Recipe,
    path: Path,
    *,
    steps: Steps | None = None,
    scales: Mapping[str, Any] | None = None,
    kubernetes: bool = False,
    namespace: str | None = None,
) -> Path:
    """Write the compiled pipeline of a recipe to `path` (YAML) and return it. Equal recipes, equal bytes.

    Raises UserError for text that a cluster would change on its way to a step, and for a wrong KASCADE_IMAGE.

    steps: other components than those of `components/`. scales: those that the run form may name.
    kubernetes: as manifests of a Pipeline and a PipelineVersion, in `namespace`, for `kubectl apply`.
    """
    _refuse_image(IMAGE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        cascade = build_cascade(recipe, steps or Steps.shipped(), scales)
        canonicalise(cascade.pipeline_spec, cascade.platform_spec)
        if scales:
            offer_scales(cascade.pipeline_spec, scales)
        for message in (cascade.pipeline_spec, cascade.platform_spec):
            refuse_filled_in(json_format.MessageToDict(message), "pipeline")
        manifests = _manifest_options(recipe, scales, namespace) if kubernetes else None
        compiler.Compiler().compile(
            cascade,
            str(path),
            kubernetes_manifest_format=kubernetes,
            kubernetes_manifest_options=manifests,
        )
    return path


def _refuse_image(image: str) -> None:
    """Raise UserError for a name that no node can fetch: its pods would wait for good."""
    try:
        TypeAdapter(ImageName).validate_python(image)
    except ValidationError:
        allowed = "REGISTRY/NAME:TAG, such as registry.example.com/team/kascade:0.1.0"
        raise UserError(Fault("KASCADE_IMAGE", f"{image!r} is no name of an image", allowed)) from None


def _manifest_options(recipe: Recipe, scales: Mapping[str, Any] | None, namespace: str | None) -> Any:
    """Versions are named by content: the same recipe again is the same version, another recipe a new one."""
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    name = re.sub(r"[^a-z0-9-]", "-", recipe.name)
    return KubernetesManifestOptions(
        pipeline_name=name,
        pipeline_display_name=recipe.name,
        pipeline_version_name=f"{name}-{short_hash(packed_text(pack(recipe, scales)))}",
        pipeline_version_display_name=recipe.name,
        namespace=namespace,
        include_pipeline_manifest=True,
    )
