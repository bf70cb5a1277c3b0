"""Run the whole matrix and write its table: `python -m tests.record_matrix [part of a name]`."""

import sys
import time

import torch

from tests.record_matrix.row import judge
from tests.record_matrix.rows import ROWS
from tests.record_matrix.table import entry, outcome, store


def main() -> None:
    """Run the rows that are asked for; write the table if these are all."""
    torch.set_num_threads(1)
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    entries = []
    for row in ROWS:
        if wanted in f"{row.group}/{row.name}":
            begin = time.perf_counter()
            verdict = judge(row)
            entries.append(entry(row, verdict))
            seconds = time.perf_counter() - begin
            place = f"{row.group}/{row.name}"
            print(f"{place:<70} {outcome(verdict):<14} {seconds:4.1f} s  {verdict.reason}")
            sys.stdout.flush()
    wrong = [e["name"] for e in entries if e["outcome"] == "WRONG"]
    if wrong:
        sys.exit(f"WRONG: {', '.join(wrong)}")
    if not wanted:
        store(entries)


if __name__ == "__main__":
    main()
