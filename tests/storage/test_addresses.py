"""Secrets in addresses are refused where addresses are taken, and no message repeats them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kascade.cli import app
from kascade.doctor.addresses import environment_faults
from kascade.errors import Fault, KascadeError, UserError, holds_secret, redact
from kascade.recipe.load import read_recipe
from kascade.recipe.schema import Storage, Tracking
from kascade.storage.address import TRACKING, WEB, address_problem
from pipelines.remote import KubeflowApi

SECRET = "hunter2"
WRITTEN = (  # one password in the places that addresses have for one
    "http://u:hunter2@h:80/v1",
    "http://hunter2@h/v1",
    "https://u:p/hunter2@h/v1",
    "http://u:p#hunter2@h/v1",
    "http://u:p?hunter2@h/v1",
    "https://h/v1?api_key=hunter2",
    "https://h/v1?a=1&X-Amz-Signature=hunter2",
    "postgresql://u:hunter2@h/d",
    "postgresql+psycopg2://u:p@hunter2@h/d",
    "postgresql://h/d?user=u&password=hunter2",
    "s3://k:hunter2@bucket/x",
    "s3://k:p/hunter2@bucket/x",
)
HARMLESS = (
    "http://127.0.0.1:8000/v1",
    "http://[::1]:8000/v1",
    "https://host/@scope/package",
    "s3://bucket/photo@2x.jsonl",
    "s3://bucket/sft/train-1@sha256:0f",
    "hf://squad@main",
    "hf://OWNER/NAME@v1",
    "sqlite:////tmp/x.db",
    "http://HOST:PORT or https://HOST",
    "mail me@host about https://host/x",
)


@pytest.mark.parametrize("address", WRITTEN)
def test_a_secret_is_seen_and_taken_out(address: str) -> None:
    assert holds_secret(address)
    assert SECRET not in redact(f"cannot reach {address}: refused")
    assert address_problem(address, (*TRACKING, "s3")) == "holds a user name, password or key"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(st.characters(exclude_characters="@\n"), min_size=12).filter(lambda text: "://" not in text))
def test_no_password_survives_whatever_it_is_made_of(password: str) -> None:
    address = f"postgresql://user:{password}@host/db"
    problem = address_problem(address, TRACKING)
    assert problem is not None
    assert password not in problem


def test_every_error_keeps_quiet() -> None:
    fault = Fault(f"--x {WRITTEN[0]}", WRITTEN[1], WRITTEN[2], WRITTEN[3])
    for error in (KascadeError(WRITTEN[0]), UserError(fault)):
        assert SECRET not in f"{error} {error!r}"
    assert SECRET not in json.dumps(UserError(fault).as_json())


PLACES = {
    "tracking.uri": "tracking: {uri: %s}",
    "storage.checkpoints": "storage: {checkpoints: %s}",
    "judge.url": "judge: {url: %s, model: m}",
    "rows": "data: {mcqa: %s}",
    "rows of all": "data: %s",
    "model": "model: %s",
    "a scale": "scales: {small: {tracking: {uri: %s}}}",
    "an option": "overrides: {sft: {data: [{source: {environment: mcqa, options: {where: %s}}}]}}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("address", WRITTEN)
def test_recipes_may_not_hold_secrets(tmp_path: Path, place: str, address: str) -> None:
    path = tmp_path / "recipe.yaml"
    text = "preset: quickstart\n"
    if place == "a scale":  # only a recipe that is spelt out declares scales
        text = (Path(__file__).parents[2] / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("scales:"))
    path.write_text(text + PLACES[place] % json.dumps(address) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_recipe(path)
    told = [fault for fault in caught.value.faults if "user name, password or key" in fault.what]
    assert told
    assert all(fault.remedy for fault in told)
    assert SECRET not in str(caught.value)


def test_addresses_of_other_kinds_are_refused() -> None:
    for wrong in (
        "nonsense://x",
        "http://",
        "http://h:port/",
        "s3://b/x",
        "sqlite://",
        "sqlite:///",
        "http://h#x",
        "",
    ):
        with pytest.raises(ValueError, match=r"address|bucket|host|port|file|fragment"):
            Tracking(uri=wrong)
    for wrong in ("file://relative", "s3://B/x", "/folder", "s3://"):
        with pytest.raises(ValueError, match=r"address|bucket|path"):
            Storage(checkpoints=wrong)
    for right in ("http://h", "sqlite:////x.db", "postgresql+psycopg2:///d", "mlruns", "databricks"):
        assert Tracking(uri=right).uri == right


def test_the_environment_is_looked_at_before_a_run() -> None:
    faults = environment_faults(
        {"KASCADE_CHECKPOINTS": "s3://k:hunter2@bucket/x", "MLFLOW_TRACKING_URI": "nonsense://x"}
    )
    assert [fault.where for fault in faults] == ["KASCADE_CHECKPOINTS", "MLFLOW_TRACKING_URI"]
    assert SECRET not in str(faults)
    assert not environment_faults({"MLFLOW_TRACKING_URI": "postgresql+psycopg2://u:p@h/d"})
    assert not environment_faults({"KASCADE_CHECKPOINTS": "file:///x", "MLFLOW_TRACKING_URI": "mlruns"})


def test_kubeflows_address_may_hold_none() -> None:
    with pytest.raises(UserError) as caught:
        KubeflowApi.find(environment={"KASCADE_KFP_HOST": "http://u:hunter2@127.0.0.1:9"})
    assert SECRET not in str(caught.value)
    assert address_problem("http://127.0.0.1:9", WEB) is None


@pytest.mark.parametrize("address", [one for one in WRITTEN if not one.startswith("postgresql")])
def test_verbs_repeat_no_secret(address: str) -> None:
    for words in (
        ["data", "check", address, "--environment", "mcqa"],
        ["grade", address, "--environment", "mcqa"],
        ["data", "check", "rows.jsonl", "--environment", "mcqa", "--judge-url", address],
        ["check", "quickstart", "--set", f"tracking.uri={address}", "--json"],
        ["check", "quickstart", "--data", address],
        ["check", "quickstart", "--model", address],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, (words[0], result.output)
        assert SECRET not in result.output
