"""Results of any evaluation, per task, and what two of them show: see docs/compare.md."""

from __future__ import annotations

from kascade.results.comparing import BenchmarkRow, compare_results
from kascade.results.model import Results
from kascade.results.reading import read_results

__all__ = ["BenchmarkRow", "Results", "compare_results", "read_results"]
