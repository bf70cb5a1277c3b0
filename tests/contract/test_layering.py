"""Layers point one way: what a folder may import of fitkit, whatever the line it stands on."""

import pytest

from tests.contract.source import Module, imported, modules

BELOW = {"data", "errors", "interop", "optimizer_state", "store"}
LEAF = {"loop", *BELOW}
MAY_IMPORT = {
    "errors": set(),
    "interop": {"errors"},
    "optimizer_state": {"errors", "interop"},
    "store": {"errors"},
    "data": {"errors", "interop"},
    "loop": BELOW,
    "passes": LEAF,
    "step": LEAF,
    "record": LEAF,
    "tune": LEAF,
    "watch": LEAF,
    "checkpoint": LEAF,
    "testing": {"stacks", *LEAF},
    "gan": {"step", *LEAF},
}
IMPORTS_ALL = {"fitkit/__init__.py", "fitkit/stacks.py", "fitkit/compiled.py"}


def layer_of(path):
    return path.removeprefix("fitkit/").removesuffix(".py").split("/")[0]


def violations(module):
    if module.path in IMPORTS_ALL:
        return []
    layer = layer_of(module.path)
    assert layer in MAY_IMPORT, f"{module.path}: say in MAY_IMPORT what '{layer}' may import"
    allowed = MAY_IMPORT[layer] | {layer}
    names = [name.split(".") for name in imported(module) if name.split(".")[0] == "fitkit"]
    return [
        f"{module.path} imports {'.'.join(name)}"
        for name in names
        if len(name) > 1 and name[1] not in allowed
    ] + [f"{module.path} imports the whole of fitkit" for name in names if is_facade(name, names)]


def is_facade(name, names):
    """Whether `fitkit` itself was imported, and not `fitkit.<layer>`."""
    return name == ["fitkit"] and not any(len(other) > 1 for other in names)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_layers_point_one_way(module):
    assert violations(module) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("fitkit/loop/runner.py", "from fitkit.step import Forward"),
        ("fitkit/loop/runner.py", "def f():\n    import fitkit.passes.metrics"),
        ("fitkit/step/forward.py", "from fitkit.watch.history import x"),
        ("fitkit/watch/trace.py", "from fitkit.tune import EMA"),
        ("fitkit/data/feed.py", "from fitkit.loop import State"),
        ("fitkit/data/feed.py", "from fitkit import loop"),
        ("fitkit/record/trace.py", "from fitkit.step import Forward"),
        ("fitkit/step/forward.py", "import fitkit"),
        ("fitkit/errors.py", "from fitkit.interop import keras"),
    ],
)
def test_a_wrong_import_is_seen(path, text):
    assert violations(Module(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("fitkit/stacks.py", "from fitkit.step import Forward"),
        ("fitkit/watch/trace.py", "from fitkit.loop.events import Event"),
        ("fitkit/loop/runner.py", "import torch\nfrom fitkit.data import Feed"),
    ],
)
def test_a_right_import_is_let_through(path, text):
    assert violations(Module(path, text)) == []
