"""Rules about the source: bare dispatch, no priorities, one backward, light imports."""

import ast
import json
import re
import subprocess
import sys

import pytest

from tests.contract.source import ROOT, Module, functions, modules

TEXT_FILES = {".py", ".md", ".toml", ".txt", ".yml", ".json"}
FOLDERS = ("fitkit", "tests", "docs", "examples", "benchmarks")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|Users|root)/\w")


def source_of(path):
    return next(module for module in modules() if module.path == path)


def is_bare_for(module, name):
    """Whether the function is one `for` over a table whose body is one call, and nothing else."""
    body = dict(functions(module.tree))[name].body
    match body:
        case [ast.For(iter=ast.Subscript(), body=[ast.Expr(value=ast.Call())], orelse=[])]:
            return True
    return False


def test_emit_is_a_bare_for():
    assert is_bare_for(source_of("fitkit/loop/bus.py"), "EventBus._emit")


@pytest.mark.parametrize(
    "body",
    [
        "for h in sorted(self.hooks):\n            h(s)",
        "for h in self.hooks[e]:\n            if h:\n                h(s)",
        "for h in self.hooks[e]:\n            log(f'{h}')\n            h(s)",
        "try:\n            pass\n        finally:\n            pass",
    ],
)
def test_work_inside_emit_is_seen(body):
    text = f"class B:\n    def emit(self, e):\n        {body}\n"
    assert not is_bare_for(Module("fitkit/loop/bus.py", text), "B.emit")


def priorities(module):
    """Names that would order callbacks by number."""
    for node in ast.walk(module.tree):
        for name in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "arg", "")):
            if name in {"priority", "priorities"}:
                yield f"{module.path}:{node.lineno} {name}"


def test_nothing_is_ordered_by_priority():
    assert [found for module in modules() for found in priorities(module)] == []


@pytest.mark.parametrize("line", ["priority = 3", "key = callback.priority", "f(priority=1)"])
def test_a_priority_is_seen(line):
    assert list(priorities(Module("fitkit/loop/bus.py", line)))


def test_the_bus_knows_no_callback_class():
    """No isinstance but for the two kinds of entry, a callback and a turn."""
    for node in ast.walk(source_of("fitkit/loop/bus.py").tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert ast.unparse(node.args[1]) == "Turn"


def backward_calls(module):
    """Functions that start a backward pass."""
    return [
        f"{module.path} {name}"
        for name, node in functions(module.tree)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".backward")
    ]


def test_the_backward_pass_is_started_in_one_place():
    found = [
        call for m in modules() if m.path.startswith("fitkit/step/") for call in backward_calls(m)
    ]
    assert found == ["fitkit/step/backward.py Backward.on_backward"]


def test_each_action_file_of_step_is_named_after_its_class():
    for module in modules():
        if not module.path.startswith("fitkit/step/"):
            continue
        name = module.path.split("/")[-1].removesuffix(".py")
        classes = [n.name for n in module.tree.body if isinstance(n, ast.ClassDef)]
        expected = name.replace("_", "")
        if any(
            "Callback" in ast.unparse(n) for n in module.tree.body if isinstance(n, ast.ClassDef)
        ):
            assert expected in [cls.lower() for cls in classes], module.path


def machine_paths(name, text):
    lines = enumerate(text.splitlines(), start=1)
    return [f"{name}:{number}" for number, line in lines if MACHINE_PATH.search(line)]


def test_no_file_names_a_path_of_some_machine():
    paths = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()]
    texts = [p for p in (*paths, *ROOT.glob("*")) if p.suffix in TEXT_FILES or p.name == "Makefile"]
    found = [f for p in texts for f in machine_paths(p.relative_to(ROOT).as_posix(), p.read_text())]
    assert found == []


def test_a_machine_path_is_seen():
    folder = "home"
    assert machine_paths("a.md", f"see /{folder}/me/fitkit") == ["a.md:1"]


LATE = ("keras", "tensorboard", "torch.utils.tensorboard", "torch._inductor", "torchmetrics",
        "sklearn", "matplotlib", "tensorflow", "safetensors")  # fmt: skip
PROBE = f"""
import json, sys
import torch
before = set(sys.modules)
import fitkit
new = set(sys.modules) - before
late = [name for name in {LATE!r} if name in new]
print(json.dumps({{"late": late, "cuda": torch.cuda.is_initialized()}}))
"""


def test_importing_fitkit_loads_nothing_heavy_and_touches_no_device():
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"late": [], "cuda": False}
