"""Benchmarks of other tools. They pose their tasks and grade the answers themselves."""
