"""Writes the report and the model card from the run's folder, also when the cascade failed."""

from components.report.component import report

__all__ = ["report"]
