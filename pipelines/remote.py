"""The connection to Kubeflow Pipelines: whom to ask, as whom, and its faults in words.

| flag | environment | meaning |
|---|---|---|
| --host | KASCADE_KFP_HOST, KF_PIPELINES_ENDPOINT | address of the API; none in a pod: that of the cluster |
| --namespace | KASCADE_KFP_NAMESPACE | where runs belong, when Kubeflow serves several users |
| --token-file | KASCADE_KFP_TOKEN_FILE, KASCADE_KFP_TOKEN | a bearer token; it is sent and never shown |
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kascade.errors import ClusterError, Fault, UserError
from kascade.storage.address import WEB, address_problem

IN_POD = "KUBERNETES_SERVICE_HOST"
PAGE = 100


@dataclass(frozen=True, slots=True)
class KubeflowApi:
    """host None: the API of the cluster that this pod runs in. namespace None: a single-user Kubeflow."""

    host: str | None
    namespace: str | None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls,
        host: str | None = None,
        namespace: str | None = None,
        token_file: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> KubeflowApi:
        """What was given, else what the environment says. Raises UserError with every fault."""
        faults: list[Fault] = []
        host = host or environment.get("KASCADE_KFP_HOST") or environment.get("KF_PIPELINES_ENDPOINT")
        if host and (problem := address_problem(host, WEB)):
            remedy = "to sign in, use --token-file or KASCADE_KFP_TOKEN_FILE"
            faults.append(
                Fault("--host", f"the address {problem}", "http://HOST:PORT or https://HOST", remedy)
            )
        if not host and IN_POD not in environment:
            remedy = (
                "give --host, or set KASCADE_KFP_HOST (`kubectl port-forward svc/ml-pipeline-ui 8080:80`)"
            )
            faults.append(Fault("--host", "no Kubeflow is named", remedy=remedy))
        named = token_file or environment.get("KASCADE_KFP_TOKEN_FILE")
        token = environment.get("KASCADE_KFP_TOKEN")
        if named:
            try:
                token = Path(named).read_text(encoding="utf-8").strip()
            except OSError as error:
                faults.append(Fault("--token-file", f"{named} cannot be read: {error.strerror}"))
        if faults:
            raise UserError(faults)
        return cls(host, namespace or environment.get("KASCADE_KFP_NAMESPACE"), token)

    def _knock(self) -> None:
        """Ask once whether we may come in; the client itself would ask for half a minute."""
        import urllib3

        if self.host is None:
            return
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        address = f"{self.host.rstrip('/')}/apis/v2beta1/healthz"
        answer = urllib3.request("GET", address, headers=headers, timeout=30.0, retries=False)
        if answer.status in (401, 403):
            raise ClusterError(_refused(self.host, answer.status, self.token))

    def pod_log(self, run_id: str, pod: str) -> str | None:
        """The log of a run's pod, as far as Kubeflow still has it; None where it cannot be had."""
        import urllib3

        if self.host is None:
            return None
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        address = f"{self.host.rstrip('/')}/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
        try:
            answer = urllib3.request("GET", address, headers=headers, timeout=30.0, retries=False)
        except urllib3.exceptions.HTTPError:
            return None
        return answer.data.decode("utf-8", errors="replace") if answer.status == 200 else None

    def link(self, client: Any, path: str) -> str:
        """An address of Kubeflow's pages for a person."""
        return f"{client._get_url_prefix()}/#/{path}"

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A `kfp.Client`. Raises ClusterError for whatever the server or the network refuses."""
        import kfp
        import kfp_server_api  # type: ignore[import-untyped]
        import urllib3

        try:
            self._knock()
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints links
                warnings.simplefilter("ignore")
                yield kfp.Client(host=self.host, existing_token=self.token)
        except kfp_server_api.ApiException as error:
            raise ClusterError(_refusal(self.host, error, self.token)) from None  # its text may hold headers
        except (urllib3.exceptions.HTTPError, OSError) as error:
            what = type(getattr(error, "reason", error)).__name__
            raise ClusterError(f"{self.host or 'the cluster'} cannot be reached ({what})") from None


def _refusal(host: str | None, error: Any, token: str | None) -> str:
    where = host or "the cluster"
    if error.status in (401, 403):
        return _refused(where, error.status, token)
    return f"{where} answers {error.status} {error.reason}: {_message(error.body)}"


def _refused(where: str, status: int, token: str | None) -> str:
    if not token:
        remedy = "name a file with one (--token-file, or KASCADE_KFP_TOKEN_FILE)"
        return f"{where} asks for a token, and none was given ({status}). To do: {remedy}"
    return (
        f"{where} refuses the token ({status}). To do: renew it (--token-file), and check that it may create "
        "runs in the namespace (--namespace)"
    )


def _message(body: Any) -> str:
    try:
        found = json.loads(body)
        return str(found.get("message") or found.get("error") or found)
    except (TypeError, ValueError, AttributeError):
        return " ".join(str(body).split())[:300]


def equals(key: str, value: str) -> str:
    """A filter of the API."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def all_pages(list_page: Any, items: str, **arguments: Any) -> Iterator[Any]:
    """Everything that a `list_*` call of the client gives, page by page."""
    token = ""
    while True:
        answer = list_page(page_token=token, page_size=PAGE, **arguments)
        yield from getattr(answer, items) or ()
        token = answer.next_page_token or ""
        if not token:
            return
