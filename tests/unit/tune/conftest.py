"""What takes long runs when it is asked for, by `pytest -m slow tests/unit/tune`."""

from pathlib import Path

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Leave out the slow tests of this folder unless the command line names them."""
    if "slow" in config.getoption("-m"):
        return
    slow = [item for item in items if HERE in item.path.parents and "slow" in item.keywords]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]
