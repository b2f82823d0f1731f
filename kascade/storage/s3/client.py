"""The connection to an S3 store: settings and keys from the environment, faults in words.

| variable | meaning | default |
|---|---|---|
| AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL | where the store is | https://s3.amazonaws.com |
| AWS_REGION, AWS_DEFAULT_REGION | its region | us-east-1 at an endpoint of one's own, else asked for |
| KASCADE_S3_PART_MIB | size of the parts in which files travel, at least 5 | 16 |
| KASCADE_S3_PARALLEL | parts under way at a time, each in memory | 4 |
| KASCADE_S3_ATTEMPTS | tries of a request | 5 |
| KASCADE_S3_TIMEOUT_S | seconds without an answer after which a try has failed | 60 |

Keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the credentials file of the AWS tools (AWS_PROFILE), the
same of MinIO, or the role that a pod was given (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE). Nowhere else.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kascade.errors import Fault, StorageError, UserError
from kascade.storage.address import WEB, address_problem

MIB = 2**20
SMALLEST_PART_MIB = 5  # S3's own rule for all parts but the last
AMAZON = "https://s3.amazonaws.com"
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
ABSENT = {"NoSuchKey", "NoSuchUpload", "ResourceNotFound"}
FULL = {"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "EntityTooLarge"}
POD_ROLE = ("AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
Answer = TypeVar("Answer")


class ConnectionCut(Exception):
    """A request or answer broke off; another try may do better."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where the store is and how files travel; part_bytes is the size of a part."""

    endpoint: str = AMAZON
    region: str | None = None
    part_bytes: int = 16 * MIB
    parallel: int = 4
    attempts: int = 5
    timeout_s: float = 60.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> S3Settings:
        """Raises UserError with every variable that is not a number in its range."""
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or AMAZON
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        faults: list[Fault] = []
        if problem := address_problem(endpoint, WEB):
            remedy = "keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a credentials file"
            faults.append(Fault("AWS_ENDPOINT_URL", problem, "http://HOST:PORT or https://HOST", remedy))
        elif beyond := _beyond_the_host(endpoint):
            what, remedy = (
                f"holds {beyond}, which no request would use",
                "leave it out: buckets are named by s3://",
            )
            faults.append(Fault("AWS_ENDPOINT_URL", what, "http://HOST:PORT or https://HOST", remedy))

        def number(name: str, default: float, least: float) -> float:
            try:
                value = float(environment.get(name, default))
            except ValueError:
                value = float("nan")
            if not least <= value < math.inf:
                faults.append(Fault(name, f"{environment[name]!r} is no such number", f"{least} or more"))
            return value

        part_mib = number("KASCADE_S3_PART_MIB", 16, SMALLEST_PART_MIB)
        parallel = number("KASCADE_S3_PARALLEL", 4, 1)
        attempts = number("KASCADE_S3_ATTEMPTS", 5, 1)
        timeout_s = number("KASCADE_S3_TIMEOUT_S", 60, 1)
        if faults:
            raise UserError(faults)
        region = region or (None if endpoint == AMAZON else "us-east-1")
        return cls(endpoint, region, int(part_mib * MIB), int(parallel), int(attempts), timeout_s)


def _beyond_the_host(endpoint: str) -> str | None:
    """What an address says beside its host and port."""
    address = urlsplit(endpoint)
    if address.path.strip("/"):
        return "a path"
    return "a query or a fragment" if address.query or address.fragment or endpoint[-1] in "?#" else None


def connect(settings: S3Settings) -> Any:
    """A minio client. Raises StorageError when no keys are found."""
    import certifi
    import minio
    import urllib3

    address = urlsplit(settings.endpoint)
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=min(settings.timeout_s, 10.0), read=settings.timeout_s),
        maxsize=2 * settings.parallel,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=urllib3.Retry(total=0, read=False, redirect=0, raise_on_status=False),
    )
    return minio.Minio(
        address.netloc,
        secure=address.scheme == "https",
        region=settings.region,
        http_client=pool,
        credentials=_credentials(),
    )


def _credentials() -> Any:
    from minio.credentials import providers

    chain = [
        providers.EnvAWSProvider(),
        providers.AWSConfigProvider(),
        providers.EnvMinioProvider(),
        providers.MinioClientConfigProvider(),
    ]
    if any(os.environ.get(name) for name in POD_ROLE):  # asks the network, so only where it is asked to
        chain.append(providers.IamAwsProvider())
    found = providers.ChainedProvider(chain)
    try:
        found.retrieve()
    except ValueError as error:
        raise StorageError(
            "no keys for s3:// were found. To do: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a "
            "profile of the credentials file by AWS_PROFILE, or give the pod's service account a role"
        ) from error
    return found


def patiently(attempts: int, request: Callable[[], Answer], wait_s: float = 0.2) -> Answer:
    """The request's answer, tried again (after 0.2, 0.4, 0.8 s ...) while the connection is cut."""
    for attempt in range(1, attempts + 1):
        try:
            return request()
        except ConnectionCut:
            if attempt == attempts:
                raise
            time.sleep(wait_s * 2 ** (attempt - 1))
    raise AssertionError("at least one attempt")


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Faults of the client in our words. Raises FileNotFoundError, ConnectionCut or StorageError."""
    import urllib3
    from minio.error import InvalidResponseError, S3Error, ServerError

    try:
        yield
    except S3Error as error:
        if error.code in ABSENT:
            raise FileNotFoundError(f"{subject}: there is no such file") from error
        if error.response is not None and error.response.status >= 500 and error.code not in FULL:
            raise ConnectionCut(f"{subject}: the store answers {error.code}") from error
        raise StorageError(_in_words(subject, error.code, error.message)) from error
    except ServerError as error:
        raise _server_fault(subject, error.status_code) from error
    except InvalidResponseError as error:
        raise _server_fault(subject, getattr(error, "_code", 500)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ConnectionCut(f"{subject}: the connection broke ({type(error).__name__})") from error


def _server_fault(subject: str, status: int) -> Exception:
    if status in (401, 403):
        return StorageError(_in_words(subject, "AccessDenied", "refused"))
    if status == 404:
        return FileNotFoundError(f"{subject}: there is no such file")
    return ConnectionCut(f"{subject}: the store answers {status}")


def _in_words(subject: str, code: str | None, message: str | None) -> str:
    if code in REFUSED:
        return (
            f"{subject}: the store refuses the keys ({code}). To do: check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), the endpoint, and what the keys may do there"
        )
    if code == "NoSuchBucket":
        return f"{subject}: there is no such bucket. To do: create it, or name another"
    if code in FULL:
        return f"{subject}: the store is full ({code}). To do: make room (`kascade gc`), or raise its quota"
    return f"{subject}: {code}: {message}"
