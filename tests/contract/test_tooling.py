"""The tooling's own promises: one command checks everything, and the pins fit the ranges."""

import os
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_ci_runs_make_test_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text().splitlines()


def test_pins_lie_within_the_declared_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = sum(project["optional-dependencies"].values(), project["dependencies"])
    ranges = [Requirement(line) for line in declared]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        version = next(iter(pin.specifier)).version
        bounds = [r.specifier for r in ranges if r.name == pin.name]
        assert bounds, f"{pin.name} is pinned but not declared"
        assert all(b.contains(version) for b in bounds), f"{pin} is outside of {bounds}"
