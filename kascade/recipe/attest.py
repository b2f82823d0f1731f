"""Secrets by reference, and the signature on what is promoted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kascade.recipe.parts import Part, formed

SecretReference = Annotated[
    str,
    formed(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$", "env:VARIABLE or file:/PATH"),
]


class Attest(Part):
    """The signature on a promoted checkpoint and on the verdicts behind it. Needs the extra `attest`."""

    key: SecretReference = Field(
        description="private key, a PEM (Ed25519, ECDSA or RSA) in env:VARIABLE or file:/PATH"
    )
