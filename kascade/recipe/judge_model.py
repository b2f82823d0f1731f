"""The language model that judges what no rule can."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from kascade.recipe.addresses import web_address
from kascade.recipe.parts import Filled, Part
from kascade.recipe.pod_forms import VariableName


class JudgeModel(Part):
    """A language model that judges: behind an OpenAI-compatible endpoint, or a local checkpoint.

    Defaults of sampling: NeMo-Gym genrm_compare. A key is named by its environment variable, never written.
    """

    url: Annotated[str | None, AfterValidator(web_address)] = Field(
        None, description="of the endpoint, up to and with /v1; None: a checkpoint"
    )
    model: Filled = Field(
        description="name at the endpoint; or a folder, hub id or builtin:// of a checkpoint"
    )
    api_key_env: VariableName | None = Field(None, description="environment variable that holds the key")
    temperature: float = Field(0.6, ge=0, description="of the judge's answers [NeMo-Gym genrm_compare]")
    top_p: float = Field(0.95, gt=0, le=1, description="of the judge's answers [NeMo-Gym genrm_compare]")
    max_tokens: PositiveInt = Field(
        16_384, description="of one verdict, its thinking included [NeMo-Gym genrm_compare]"
    )
    timeout_s: PositiveFloat = Field(600.0, description="of one request")
    attempts: PositiveInt = Field(4, description="tries of a request that failed or said nothing readable")
    backoff_s: float = Field(1.0, ge=0, description="wait after the first failure; doubles with each")
    max_backoff_s: float = Field(60.0, ge=0, description="longest wait between two tries")
    concurrency: PositiveInt = Field(16, description="requests that may run at once")
    requests_per_minute: PositiveFloat | None = Field(None, description="None: as fast as they are answered")
    cache: bool = Field(True, description="keep verdicts on disk and ask no question twice")
