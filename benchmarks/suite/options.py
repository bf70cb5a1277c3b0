"""The options of `python -m benchmarks run`; imports nothing heavy."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="cases, curves or groups")
    parser.add_argument("--peers", nargs="*", metavar="PEER", help="only these; none for none")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help="only these at all")
    parser.add_argument("--quick", action="store_true", help="fewer cases, within 8 minutes")
    parser.add_argument("--minutes", type=float, help="begin nothing that may take longer")
    parser.add_argument("--rounds", type=int, help="measured rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="draw the result, too")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/suite_DEVICE.json")
