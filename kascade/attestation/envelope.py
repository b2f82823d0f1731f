"""Signing and reading an envelope (DSSE) around an in-toto statement, by securesystemslib and in-toto's own
library."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from kascade.attestation.statement import PREDICATE
from kascade.errors import Fault, KascadeError, UserError

PAYLOAD = "application/vnd.in-toto+json"
PASSWORD = "KASCADE_KEY_PASSWORD"  # environment variable with the password of an encrypted key
INSTALL = "install it: pip install 'kascade[attest]'"


class NotVerified(KascadeError):
    """An envelope is broken, of another kind, or signed by another key."""


def sign(subject: Mapping[str, str], predicate: Mapping[str, Any], pem: str, where: str) -> str:
    """The envelope's JSON. subject: SHA-256 by name. pem: the private key. Raises UserError for the key."""
    _require()
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement
    from securesystemslib.dsse import Envelope

    subjects = [ResourceDescriptor(name=name, digest={"sha256": sha}).pb for name, sha in subject.items()]
    statement = Statement(subjects, PREDICATE, dict(predicate))
    statement.validate()
    payload = json_format.MessageToJson(statement.pb, indent=None, sort_keys=True)
    envelope = Envelope(payload.encode(), PAYLOAD, {})
    envelope.sign(_signer(pem, where))
    return json.dumps(envelope.to_dict(), indent=1) + "\n"


def _signer(pem: str, where: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    password = os.environ.get(PASSWORD)
    try:
        return CryptoSigner(load_pem_private_key(pem.encode(), password.encode() if password else None))
    except (ValueError, TypeError) as error:  # its words may quote the key
        what = f"is not a private key that can be read ({type(error).__name__})"
        remedy = f"give a PEM, and the password of an encrypted one in {PASSWORD}"
        raise UserError(Fault(where, what, "Ed25519, ECDSA or RSA, as PEM", remedy)) from None


def public_half(pem: str, where: str) -> Any:
    """The public key of a private one."""
    _require()
    return _signer(pem, where).public_key


def public_key(pem: bytes, where: str) -> Any:
    """A public key that signatures are held against. Raises UserError."""
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm) as error:
        what = f"is not a public key that can be read ({type(error).__name__})"
        remedy = "openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem"
        raise UserError(Fault(where, what, "Ed25519, ECDSA or RSA, as PEM", remedy)) from None


def opened(text: bytes, key: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Subject (SHA-256 by name) and predicate of an envelope that the key has signed. Raises NotVerified."""
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    if not text:
        raise NotVerified("is missing: nothing signs this checkpoint")
    try:
        envelope = Envelope.from_dict(json.loads(text))
        envelope.verify([key], 1)
    except VerificationError:
        raise NotVerified("the signature is not one by this key over this statement") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotVerified(f"is no signed envelope ({type(error).__name__})") from None
    if envelope.payload_type != PAYLOAD:
        raise NotVerified(f"the envelope holds {envelope.payload_type}, not {PAYLOAD}")
    try:
        statement = Statement.copy_from_pb(json_format.Parse(envelope.payload, Message()))
        statement.validate()
    except (ValueError, json_format.ParseError) as error:
        raise NotVerified(f"the signed statement is not one of in-toto's ({type(error).__name__})") from None
    if statement.pb.predicate_type != PREDICATE:
        raise NotVerified(f"the statement is of another kind: {statement.pb.predicate_type}")
    subject = {one.name: one.digest["sha256"] for one in statement.pb.subject}
    return subject, json_format.MessageToDict(statement.pb.predicate)


def _require() -> None:
    """Raises UserError where the extra is not installed."""
    if any(find_spec(name) is None for name in ("in_toto_attestation", "securesystemslib")):
        raise UserError(Fault("attest", "the extra `attest` is not installed", remedy=INSTALL))
