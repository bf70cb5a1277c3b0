"""The suite behind `python -m benchmarks run | report | compare`."""
