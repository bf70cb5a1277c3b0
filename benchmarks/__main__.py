"""How fast is it here, and against others: `python -m benchmarks run | report | compare`.

python -m benchmarks run --quick             measure, within eight minutes
python -m benchmarks report FILE.json ...    a page with charts, PNG files, a table
python -m benchmarks compare A.json B.json   what changed beyond the spread
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from benchmarks.suite import server


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure; a run that was killed goes on")
    add_run_arguments(runs)
    reports = commands.add_parser("report", help="draw result files")
    reports.add_argument("files", nargs="+", type=Path)
    reports.add_argument("--out", type=Path, help="folder; default: that of the first file")
    compares = commands.add_parser("compare", help="say what changed from one file to another")
    compares.add_argument("files", nargs=2, type=Path)
    arguments = parser.parse_args(argv)
    return {"run": run, "report": report, "compare": compare}[arguments.command](arguments)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    from benchmarks.suite.options import add_arguments

    add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the device before Keras is imported, which does it for good."""
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch reads it
    quiet()
    import torch

    torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device\nUse --device cpu.")
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": device}
    if device == "cuda":  # no helpers beside the rounds; on a CPU they are threads that wait
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    server.start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up in both cases
    from benchmarks.suite.run import run as measure

    try:
        return measure(arguments, device)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on with the case it was in")
        return 130


def quiet() -> None:
    """Let nobody write to any service."""
    os.environ |= {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # who is ended in mid-training leaves locks behind; the process that tidies up says so
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")


def report(arguments: argparse.Namespace) -> int:
    from benchmarks.suite.report import report as draw

    return draw(arguments.files, arguments.out)


def compare(arguments: argparse.Namespace) -> int:
    from benchmarks.suite.compare import compare as say

    print(say(*arguments.files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
