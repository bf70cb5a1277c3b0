"""The matrix of what `Record` records: `python -m tests.record_matrix` runs it all.

Each row trains a small model with one optimizer, loss, metric or layer, eagerly and recorded.
The outcomes are written to docs/record_matrix.json and from there into docs/record.md.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before a row imports Keras
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")
