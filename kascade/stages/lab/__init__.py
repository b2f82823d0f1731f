"""Experiments on the runs of a cascade."""
