"""Writes the report and the model card from the run's folder."""

from components.report.component import report

__all__ = ["report"]
