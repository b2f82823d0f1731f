"""The runner of the benchmarks, and that the contenders do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGE, RESULTS, main, table
from benchmarks.gpu import flops_a_token, peak_flops
from benchmarks.graders import answered
from benchmarks.measure import Measurement, compare, cpu_time, median_cpu_time
from benchmarks.memory import peak_of, score
from benchmarks.page import BEGIN, END, with_table
from benchmarks.registry import BENCHMARKS, load
from benchmarks.rollout import GivenLengths, make_model, sample_ours, sample_peer, spread_lengths
from kascade.environments import get_environment
from kascade.environments.base import generate_tasks

FAKES = {"fake": "fake_benchmark:run", "other": "fake_benchmark:other"}


def test_every_registered_benchmark_loads() -> None:
    assert all(callable(load(place)) for place in BENCHMARKS.values())


def test_the_table_has_ratios_where_there_is_a_peer() -> None:
    head, first, second = table(load(FAKES["fake"])(False)).splitlines()
    assert head.split() == ["benchmark", "ours", "peer", "ratio", "unit", "peer", "is"]
    assert first.split()[4:7] == ["3,000.0", "1,200.0", "2.50"]
    assert second.split() == ["fake,", "alone", "7.5", "answers", "/", "CPU", "s"]


def test_results_are_a_list_with_ratio_ours_over_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    main(["--out", str(out)], FAKES)
    rows = json.loads(out.read_text())
    assert rows[0] == {
        "name": "fake, with a peer",
        "ours": 3000.0,
        "peer": 1200.0,
        "ratio": 2.5,
        "unit": "tokens / CPU s",
        "peer_name": "slow peer",
    }
    assert (rows[1]["peer"], rows[1]["ratio"], len(rows)) == (None, None, 3)
    assert "load average" in capsys.readouterr().out


def test_only_one_is_run_and_the_others_results_stay(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    main(["--out", str(out)], FAKES)
    main(["--out", str(out), "fake", "--quick"], FAKES)
    assert {row["name"]: row["ours"] for row in json.loads(out.read_text())} == {
        "fake, with a peer": 30.0,
        "fake, alone": 7.5,
        "other": 1.0,
    }
    main(["--out", str(out)], {"other": FAKES["other"]})
    assert [row["name"] for row in json.loads(out.read_text())] == ["other"]


def test_quick_numbers_are_not_kept_unless_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.RESULTS", tmp_path / "results.json")
    main(["--quick"], FAKES)
    assert not (tmp_path / "results.json").exists()
    readme = tmp_path / "README.md"
    readme.write_text(f"speeds\n{BEGIN}old\n{END}rest\n")
    monkeypatch.setattr("benchmarks.__main__.PAGE", readme)
    main([], FAKES)
    assert (tmp_path / "results.json").exists()
    assert "| fake, with a peer | 3,000 | 1,200 | 2.50 |" in readme.read_text()
    with pytest.raises(SystemExit) as caught:
        main(["none"], FAKES)
    assert caught.value.code == 2
    assert "invalid choice: 'none'" in capsys.readouterr().err


def test_contenders_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    compare(lambda: calls.append("ours"), lambda: calls.append("peer"), rounds=3)
    assert calls == ["ours", "peer"] * 4


def test_cpu_time_counts_child_processes_and_short_calls_are_repeated() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    assert cpu_time(lambda: subprocess.run([sys.executable, "-S", "-c", burn], check=True)) > 0.19
    calls: list[int] = []
    median_cpu_time(lambda: calls.append(1), rounds=1)
    assert len(calls) > 10


def test_lengths_are_spread_from_16_to_128_in_equal_ratios() -> None:
    lengths = sorted(spread_lengths(128))
    assert (lengths[0], lengths[-1], len(lengths)) == (16, 128, 128)
    assert lengths[64] == pytest.approx((16 * 128) ** 0.5, rel=0.03)


@pytest.mark.parametrize("name", ["mini-nemotron-h", "mini-qwen3"])
def test_both_rollouts_end_each_answer_where_it_must(name: str) -> None:
    model, ids, lengths = make_model(name), [[5, 6, 7, 8, 9, 10, 11]], [1, 2, 3, 4, 5, 6, 7, 8]
    assert sample_ours(GivenLengths(model, lengths), ids, max(lengths)) == sum(lengths)
    assert sample_peer(model, ids, lengths) == 8 * max(
        lengths
    )  # goes on with padding until the last has ended


def test_graders_are_given_right_and_wrong_answers() -> None:
    environment = get_environment("mcqa")
    groups = answered(generate_tasks(environment, split="test", count=8, seed=0))
    rewards = [[grade.reward for grade in group] for group in environment.grade_all(groups)]
    assert all(group[0] == 1 and group[2] == 0 for group in rewards)


def test_what_was_measured_outlives_an_interruption(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    with pytest.raises(ModuleNotFoundError):
        main(["--out", str(out)], {**FAKES, "broken": "no_such_benchmark:run"})
    assert len(json.loads(out.read_text())) == 3


def test_the_readme_says_what_the_results_say() -> None:
    readme = PAGE.read_text(encoding="utf-8")
    assert with_table(readme, json.loads(RESULTS.read_text())) == readme
    with pytest.raises(ValueError, match=r"benchmarks.md lacks"):
        with_table("no marks", [])


def test_log_probabilities_take_a_quarter_of_the_memory_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kascade.models.logprobs.MAX_CHUNK_ELEMENTS", 2**21)  # as small a part of the whole
    work = [partial(score, plain=plain, vocabulary=151_936 // 4) for plain in (False, True)]
    for one in work:
        one(8)()  # what the first call of all loads is not the work's
    ours, whole = (peak_of(partial(one, 1024)) for one in work)
    assert whole > 200  # MiB: two of 148 at least
    assert ours < whole / 4


def test_flops_count_matrices_and_causal_attention_and_the_card_is_known_by_its_longest_name() -> None:
    model = make_model("mini-qwen3")
    layer = 128 * (4 * 32 + 2 * 2 * 32) + 4 * 32 * 128 + 3 * 128 * 384
    assert flops_a_token(model, 100) == 6 * (4 * layer + 512 * 128) + 6 * 4 * 128 * 100
    assert (peak_flops("NVIDIA H100 PCIe"), peak_flops("NVIDIA H100 80GB HBM3")) == (756e12, 989e12)
    assert peak_flops("unheard of") is None


def test_a_measurement_without_a_peer_has_no_ratio_and_sizes_have_it_the_other_way_round() -> None:
    assert Measurement("x", 2.0, "MiB", peer=4.0, peer_name="p", less_is_better=True).ratio == 2
    assert Measurement("x", 2.0, "u").ratio is None
    assert Measurement("x", 2.0, "u", peer=4.0, peer_name="p").ratio == 0.5
