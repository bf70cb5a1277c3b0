"""Run all trials of all rows, count, and keep the counts: `python -m tests.faults [ROW ...]`.

Trials fork from this process, which has imported everything. The counts go to
docs/reliability.json, from which `python -m docs.generate` writes the page.
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

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of fsyncs go faster there
RESULT = Path(__file__).parents[2] / "docs" / "reliability.json"


def run(row):
    """The counts of a row, printing the first trial that failed."""
    passed, begun = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fitkit-", dir=MEMORY) as folder:
        trials = list(row.trials(Path(folder)))
        for trial in trials:
            try:
                trial()
                passed += 1
            except (Exception, pytest.fail.Exception):
                print(f"{row.name}:", traceback.format_exc(limit=-4), flush=True)
    with tempfile.TemporaryDirectory(prefix="fitkit-", dir=MEMORY) as folder:
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
    known = [row.name for row in ROWS]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no row is named {unknown[0]}; there are: {', '.join(known)}")
    results = {}
    for row in ROWS:
        if not names or row.name in names:
            results[row.name] = counts = run(row)
            held = json.loads(RESULT.read_text()) if RESULT.exists() else {}  # others may run, too
            held[row.name] = counts
            held = {name: held[name] for name in known if name in held}
            RESULT.write_text(json.dumps(held, indent=1) + "\n")
    good = all(r["passed"] == r["trials"] and r["control"] == "fails" for r in results.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
