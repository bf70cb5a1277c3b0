"""Programs that measure fitkit; run from the repository root: `python -m benchmarks.<name>`."""
