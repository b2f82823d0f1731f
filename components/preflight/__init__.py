"""Reads the run form, checks model, data and graders, and imports the base model into the run."""

from components.preflight.component import preflight

__all__ = ["preflight"]
