"""Notifications: where a run says what happened to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.addresses import notify_address
from kascade.recipe.attest import SecretReference
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.parts import Part

Event = Literal[
    "regressed", "recovered", "stopped", "budget_reached", "waiting_for_approval", "promoted", "failed"
]


class Notify(Part):
    """One receiver of notifications: an HTTP address that takes a POST."""

    url: Annotated[str, AfterValidator(notify_address)] = Field(
        description="https://HOST/PATH, or env:VARIABLE or file:/PATH for an address that is a secret"
    )
    events: tuple[Event, ...] = Field((), description="which events; none: all of them")
    format: Literal["kascade", "slack"] = Field(
        "kascade", description="kascade: JSON with all fields; slack: one text, for a Slack-compatible hook"
    )
    secret: SecretReference | None = Field(
        None, description="key of the signature (HMAC-SHA256) in a header; None: unsigned"
    )
    attempts: PositiveInt = Field(3, le=10, description="tries of one notification")
    timeout_s: PositiveFloat = Field(5.0, le=60, description="wait for the receiver's answer in one try")
    backoff_s: NonNegativeFloat = Field(1.0, le=60, description="wait before the second try; doubles after")

    @model_validator(mode="after")
    def _a_hook_is_a_secret(self) -> Notify:
        if self.format == "slack" and "://" in self.url:
            what = "the address of such a hook is a secret: who knows it can write there"
            remedy = "write it into an environment variable and name that one: env:VARIABLE"
            raise CrossCheckError([Problem(("url",), what, "env:VARIABLE or file:/PATH", remedy)])
        return self
