"""No hidden host sync: each line that may wait for the device says `# sync:` and when."""

import ast

import pytest

from tests.contract.source import Module, modules

READS = {"item", "cpu", "tolist", "numpy", "synchronize"}
ON_THE_HOST = {  # strings and arrays of numpy, no tensors
    *("float(match[1])", "float(p50)", "float(p95)"),
    *("float(seconds.sum())", "seconds.tolist()"),
}


def syncs(module):
    """Line number and source of everything that may copy a tensor to the host."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        source = ast.unparse(node)
        reads = isinstance(node.func, ast.Attribute) and node.func.attr in READS
        reads = reads and not source.startswith("np.")  # numpy's arrays are on the host
        converts = isinstance(node.func, ast.Name) and node.func.id == "float"
        literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
        if (reads or (converts and not literal)) and source not in ON_THE_HOST:
            yield node, source


def undeclared(module):
    lines = module.text.splitlines()
    return [
        f"{module.path}:{node.lineno}: {source}"
        for node, source in syncs(module)
        if not any("# sync:" in line for line in lines[node.lineno - 1 : node.end_lineno])
    ]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_every_sync_says_when_and_why(module):
    assert undeclared(module) == []


@pytest.mark.parametrize(
    "line",
    [
        "x = loss.item()",
        "x = [t.cpu() for t in tensors]",
        "torch.cuda.synchronize(device)",
        "x = float(loss)",
        "x = loss.detach().numpy()",
    ],
)
def test_a_silent_sync_is_seen(line):
    assert undeclared(Module("fitkit/a.py", line))
    assert undeclared(Module("fitkit/a.py", f"{line}  # sync: once per pass")) == []


def test_a_number_on_the_host_is_let_through():
    assert undeclared(Module("fitkit/a.py", 'x = float("inf")')) == []
