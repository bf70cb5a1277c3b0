"""The environment of every test, fixed before torch or Keras is imported."""

import gc
import os

os.environ["KERAS_BACKEND"] = "torch"
# On a GPU machine Keras would put its variables on the GPU; only the gpu tests want that.
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread: the order of sums is fixed

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _old_objects_aside():
    """Hide from the collector what is alive before a test.

    A collection then costs a test its own objects, not the million of torch and Keras (half a
    second, at every `clear_session`), and who looks for leaks finds only those of the test.
    """
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_collection_modifyitems(config, items):
    """Leave out slow and browser tests unless `-m` names them; skip those for an unwanted GPU."""
    for marker in ("slow", "browser"):
        if marker not in config.getoption("-m"):
            left_out = [item for item in items if marker in item.keywords]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if marker not in item.keywords]
    if torch.cuda.is_available() and os.environ["KERAS_TORCH_DEVICE"].startswith("cuda"):
        return
    skip = pytest.mark.skip(reason="needs a CUDA device and KERAS_TORCH_DEVICE=cuda")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
