"""Run all trials of all rows, count, and keep the counts: `python -m tests.faults [ROW ...]`.

The counts go to docs/reliability.json, from which `python -m docs.generate` writes the page.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pytest
import torch

from tests.faults.rows import ROWS

RESULT = Path(__file__).parents[2] / "docs" / "reliability.json"


def run(row):
    """The counts of a row, printing the first trial that failed."""
    passed, begun = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fitkit-") as folder:
        trials = list(row.trials(Path(folder)))
        for trial in trials:
            try:
                trial()
                passed += 1
            except (Exception, pytest.fail.Exception):
                print(f"{row.name}:", traceback.format_exc(limit=-4), flush=True)
    with tempfile.TemporaryDirectory(prefix="fitkit-") as folder:
        caught = row.control(Path(folder))
    seconds = time.monotonic() - begun
    print(f"{row.name}: {passed}/{len(trials)}, control {caught}, {seconds:.0f} s", flush=True)
    return {
        "what": row.what,
        "passed": passed,
        "trials": len(trials),
        "control": "fails" if caught else "PASSES",
    }


def main(names):
    """Run the rows named, or all; return 1 if a trial failed or a control did not."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known = [row.name for row in ROWS]
    for row in ROWS:
        if not names or row.name in names:
            results[row.name] = run(row)
            results = {name: results[name] for name in known if name in results}
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
    good = all(r["passed"] == r["trials"] and r["control"] == "fails" for r in results.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
