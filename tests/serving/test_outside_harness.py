"""lm-eval's own client gets the same from a served checkpoint as lm-eval from the model itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_api import running

from kascade.models.load import resolve_source
from kascade.serving.served import Served

pytest.importorskip("lm_eval", reason="lm-eval is not installed: outside harnesses were not run")
MODEL = "builtin://mini-nemotron-h"
PAIRS = [
    ("Ada keeps the red", " key."),
    ("The capital of Ostaria is", " Vell."),
    ("Write f(k): double k.", " return k * 2"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(Served.load(MODEL)) as url:
        yield url


@pytest.mark.slow
def test_log_likelihoods_equal_lm_evals_own(address: str) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    folder = str(resolve_source(MODEL))
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(PAIRS)]
    served = LocalCompletionsAPI(
        base_url=f"{address}/v1/completions", model="mini-nemotron-h", tokenizer=folder, num_concurrent=1
    ).loglikelihood(asked, disable_tqdm=True)
    own = HFLM(folder, device="cpu", dtype="float32", batch_size=1).loglikelihood(asked, disable_tqdm=True)
    assert [greedy for _, greedy in served] == [greedy for _, greedy in own]
    assert [value for value, _ in served] == pytest.approx([value for value, _ in own], abs=1e-3)
