"""A log that lm-eval itself writes: the accuracy we read is the accuracy it reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.models.load import resolve_source
from kascade.results import read_results

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: its own logs were not read")
CITIES = [("Ostaria", "Vell"), ("Belora", "Ond"), ("Tarn", "Kess"), ("Mirra", "Sol"), ("Ilva", "Pell")]

CHOICES = [city for _, city in CITIES]


@pytest.mark.slow
def test_accuracy_equals_lm_evals_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM

    rows = [
        {
            "question": f"The capital of {country} is",
            "choices": [city for _, city in CITIES],
            "label": number % 5,
        }
        for number, (country, _) in enumerate(CITIES * 4)
    ]
    data = tmp_path / "cities.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task: dict[str, Any] = {
        "task": "cities",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    }
    model = HFLM(
        str(resolve_source("builtin://mini-nemotron-h")), device="cpu", dtype="float32", batch_size=4
    )
    done = lm_eval.simple_evaluate(model=model, tasks=[task], log_samples=True, bootstrap_iters=0)
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    tracker.general_config_tracker.model_name_sanitized = "mini"
    tracker.date_id = "2026-11-29T00-00-00"
    tracker.save_results_samples("cities", done["samples"]["cities"])
    found = read_results(tmp_path / "out", metric="acc").benchmarks["cities"]
    assert len(found.rewards) == len(rows)
    means = found.task_means()
    assert sum(means.values()) / len(means) == pytest.approx(done["results"]["cities"]["acc,none"])
