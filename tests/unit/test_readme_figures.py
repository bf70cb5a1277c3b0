"""The figures of the README are those of the result files, and of nothing else."""

import pytest

from benchmarks.readme import figures
from tests.unit.benchmarks.rows import example
from tests.unit.benchmarks.rows import result as suite

MACHINE = {
    "commit": "0123456789ab",
    "date": "2025-01-02T03:04:05+00:00",
    "cpu": "Some CPU",
    "threads": 1,
    "versions": {"torch": "2.13.0"},
}
COMPARED = {
    "baseline": "hand loop",
    "cpu_us_per_step": {"hand loop": {"median": 2000.0}, "fitkit": {"median": 1800.0}},
    "cpu_ratio": {"fitkit": {"median": 0.9, "p5": 0.88, "p95": 0.93}},
    "machine": MACHINE,
}
GUIDE = {
    "recipe": {"epochs": 3, "batch_size": 32},
    "runs": [{}, {}],
    "summary": {
        "seeds_bit_equal": 2,
        "val_accuracy_median": 0.9301,
        "val_accuracy_range": [0.91, 0.94],
        "cpu_ratio_median": 0.95,
    },
    "machine": MACHINE,
}
DISPATCH = {"rows": [{"listeners": 5, "emit": 855.4, "loop": 778.7}], "machine": MACHINE}
ADDED = {
    "adds_us_per_step": 12.34,
    "kernels_us_per_step": 3.25,
    "allowed_us_per_step": 9.225,
    "resolution_us": 0.84,
}
CALLBACKS = {
    "nothing": {"eager": {"adds_us_per_step": 7.4}, "recorded": ADDED},
    "ClipGradNorm": {
        "eager": {"adds_us_per_step": 284.6},
        "recorded": ADDED | {"verdict": "above"},
    },
    "backend": "inductor",
    "machine": MACHINE,
}
TURNED = {
    "points": 100,
    "replay and eager": {"turned": 3},
    "eager and float64": {"turned": 2},
}
RECORD = {
    "MLP, 1 thread": COMPARED,
    "agreement": {
        "MLP": {"weights": 5e-5, "momentum": 1e-6, "velocity": 4e-5, **TURNED},
        "CNN": {"weights": 2e-3, "momentum": 1e-7, "velocity": 1e-7, **TURNED},
    },
    "peak_memory_ratio": {"ratio": 0.976},
    "first_use": {
        "this process": {"trace_s": 0.42, "compile_s": 9.8},
        "second process": {"trace_s": 0.4, "compile_s": 2.04},
    },
}


@pytest.mark.parametrize(
    ("name", "result", "expected"),
    [
        ("gan", COMPARED, "| gan | fitkit | 1,800 | hand loop | 2,000 | 0.900 (0.880 to 0.930) |"),
        (
            "overhead",
            {"torch": COMPARED},
            "| torch | fitkit | 1,800 | hand loop | 2,000 | 0.900 (0.880 to",
        ),
        (
            "record",
            RECORD,
            "the networks above: weights 2e-03, momentum 1e-06, velocity 4e-05. At 6 of 200 points",
        ),
        ("record", RECORD, "compile 9.8 s, or 2.0 s where an earlier process"),
        ("guide_mnist", GUIDE, "in 2 of 2 seeds the weights equal those of the hand loop"),
        ("dispatch", DISPATCH, "| 5 | 855 | 779 |"),
    ],
)
def test_a_result_is_quoted_with_its_commit(name, result, expected):
    text = figures({name: result})
    assert expected in text
    assert "commit 0123456789ab on 2025-01-02, Some CPU" in text


def test_a_result_of_a_changed_checkout_is_left_out():
    changed = {**COMPARED, "machine": {**MACHINE, "commit": "0123456789ab+changes"}}
    for result in (changed, {"form": changed}):
        assert figures({"record": result}) == figures({})


def test_without_results_the_readme_says_so():
    assert figures({}) == "Nothing has been measured at a clean commit yet."


def test_the_suite_comes_first_and_a_quick_run_gives_way_to_a_long_one():
    rows = example()["rows"]
    long = suite(*rows)
    short = {**long, "left_out": ["cnn"]}
    text = figures({"gan": COMPARED, "suite_cpu": long, "suite_cpu_quick": short})
    assert text.startswith("Against other libraries on the same models and batches")
    assert "- MLP, batch 32: fitkit Record inductor takes 1,000 us per step" in text
    assert "| hand loop, Keras parts | 5,000 (1) |" in text
    assert "skorch failed: ImportError" in text
    assert "no time for" not in text
    assert "There was no time for: CNN on 32x32x3, batch 32." in figures({"suite_cpu_quick": short})


def test_the_cost_of_callbacks_is_told_with_its_bar_and_its_resolution():
    text = figures({"callbacks_cost": CALLBACKS})
    assert "| `nothing` | 7 | 12.3 |  |  |  | 0.8 |" in text
    assert "| `ClipGradNorm` | 285 | 12.3 | 3.2 | 9.2 | above | 0.8 |" in text
    assert "0123456789ab" in text
