"""Faults injected on purpose, row by row: `python -m tests.faults` runs all and counts."""
