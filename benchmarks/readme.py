"""Write the figures of README.md from the result files: `python -m benchmarks.readme`.

Every figure there comes from `results/*.json`, through this program. A result that was measured on
a checkout with changes is for looking, and is left out.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.suite import bars, tables, words
from docs.marked import fill

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"

KINDS = ("weights", "momentum", "velocity")  # of variables of a recorded step

Result = dict[str, Any]


def readme() -> str:
    """README.md with the figures of the result files as they are today."""
    return fill(README.read_text(), "results", figures(results()))


def results() -> dict[str, Result]:
    """All result files by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def figures(found: dict[str, Result]) -> str:
    """What the README says about all results."""
    clean = {name: result for name, result in found.items() if is_clean(result)}
    for name in [name for name in clean if name.removesuffix("_quick") != name]:
        if name.removesuffix("_quick") in clean:
            del clean[name]  # there is a longer run of the same
    suites_first = sorted(clean.items(), key=lambda item: item[1].get("suite") != 1)
    parts = [part for name, result in suites_first for part in paragraphs(name, result)]
    return "\n\n".join(parts) or "Nothing has been measured at a clean commit yet."


def is_clean(result: Result) -> bool:
    """Whether every machine named in a result was at a commit without changes."""
    if "machine" in result:
        return not result["machine"]["commit"].endswith("+changes")
    return all(is_clean(each) for each in result.values() if isinstance(each, dict))


def paragraphs(name: str, result: Result) -> Iterator[str]:
    """What the README says about one result file."""
    program = f"`python -m benchmarks.{name}`"
    if result.get("suite") == 1:
        yield from suite_paragraphs(name, result)
    elif compared := dict(comparisons(name, result)):
        yield f"CPU time of a training step, {program}. A ratio below 1 is faster."
        yield comparison_table(compared)
        if name == "record":
            yield record_sentence(result)
        yield measured_on(*compared.values())
    elif name == "guide_mnist":
        yield guide_sentence(program, result)
        yield measured_on(result)
    elif name == "callbacks_cost" and "machine" in result:  # not one of before it was judged
        rows = {name: each for name, each in result.items() if "recorded" in each}
        yield (
            "What a callback adds to an eager and to a compiled step of the MLP, in us, "
            f"{program}: beside the latter the bare kernels that it cannot do without, and whether "
            "it stays within 5 us (curves of every step: 10 us) and 1.3 times these. The first "
            "lines tell what is resolved, of eager steps less: hooks that do nothing, or let a "
            "known time go by. The callbacks that look at every hundredth step have it run "
            "eagerly; theirs is what comes on top of the line that says so."
        )
        yield callbacks_table(rows)
        yield measured_on(result)
    elif name == "dispatch":
        yield f"Firing one event, {program}."
        yield dispatch_table(result)
        yield measured_on(result)


def suite_paragraphs(name: str, result: Result) -> Iterator[str]:
    """Chart and table of a run of the suite; `python -m benchmarks report` draws the chart."""
    options = " --quick" * name.endswith("_quick")
    device = "cpu" if "cpu" in name else "cuda"
    yield (
        f"Against other libraries on the same models and batches, `python -m benchmarks run"
        f"{options} --device {device}`:"
    )
    if (RESULTS / f"{name}.png").exists():
        yield f"![Time of a step in every case](benchmarks/results/{name}.png)"
    if lines := [f"- {line}" for line in words.headlines(result)]:
        yield "\n".join(lines)
    yield tables.markdown(tables.overview(result))
    if lines := [f"- {line}" for line in bars.sentences(result)]:
        yield "\n".join(lines)
    if lines := [f"- {line}" for line in words.doubts(result)]:
        yield "What does not hold, or was not measured:\n\n" + "\n".join(lines)
    yield words.measured(result)


def comparisons(name: str, result: Result) -> Iterator[tuple[str, Result]]:
    """The results of `harness.compare` in a file: the file itself, or one per form."""
    if "cpu_ratio" in result:
        yield name, result
    else:
        for form, each in result.items():
            if isinstance(each, dict) and "cpu_ratio" in each:
                yield form, each


def comparison_table(compared: dict[str, Result]) -> str:
    """One row per form and contestant: its time, that of the baseline, the ratio."""
    lines = [
        "| What | Contestant | us per step | against | its us per step | ratio (p5 to p95) |",
        "|---|---|---|---|---|---|",
    ]
    for form, result in compared.items():
        times = result["cpu_us_per_step"]
        base = times[result["baseline"]]["median"]
        for contestant, ratio in result["cpu_ratio"].items():
            spread = "{median:.3f} ({p5:.3f} to {p95:.3f})".format(**ratio)
            own = times[contestant]["median"]
            against = f"{result['baseline']} | {base:,.0f}"
            lines.append(f"| {form} | {contestant} | {own:,.0f} | {against} | {spread} |")
    return "\n".join(lines)


def guide_sentence(program: str, result: Result) -> str:
    """The guide's MNIST recipe."""
    recipe, summary, seeds = result["recipe"], result["summary"], len(result["runs"])
    low, high = summary["val_accuracy_range"]
    return (
        f"The guide's MNIST recipe ({recipe['epochs']} epochs, batches of {recipe['batch_size']}), "
        f"{program}: in {summary['seeds_bit_equal']} of {seeds} seeds the weights equal those of "
        f"the hand loop to the bit. Validation accuracy {summary['val_accuracy_median']:.4f} "
        f"(median), {low:.4f} to {high:.4f}. CPU time {summary['cpu_ratio_median']:.3f} times that "
        f"of the hand loop (median)."
    )


def record_sentence(result: Result) -> str:
    """What a recorded step costs and how close it stays, beside its speed."""
    cases = result["agreement"].values()
    worst = {kind: max(each[kind] for each in cases) for kind in KINDS}
    errors = ", ".join(f"{kind} {error:.0e}" for kind, error in worst.items())
    points = sum(each["points"] for each in cases)
    turned = {
        pair: sum(each[pair]["turned"] for each in cases)
        for pair in ("replay and eager", "eager and float64")
    }
    first = result["first_use"]
    cold, warm = first["this process"], first["second process"]
    return (
        "One compiled step against one eager step from the same state, largest difference over "
        f"the change the step makes, 100 points, the networks above: {errors}. At "
        f"{turned['replay and eager']} of {points} points rounding turned a tie, such as a ReLU at "
        f"zero, between them, and at {turned['eager and float64']} between the eager step and the "
        f"same one in float64. Peak of tensor "
        f"memory {result['peak_memory_ratio']['ratio']:.2f} of eager. First use of the MLP: trace "
        f"{cold['trace_s']:.1f} s, compile {cold['compile_s']:.1f} s, or "
        f"{warm['compile_s']:.1f} s where an earlier process has compiled it."
    )


def callbacks_table(rows: dict[str, Result]) -> str:
    """What callbacks add to a step; to a recorded one, against their kernels."""
    lines = [
        "| Callback | eager | compiled | its kernels | may add | | resolved |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, both in rows.items():
        row, eager = both["recorded"], f"{both['eager']['adds_us_per_step']:.0f}"
        us = [row[f"{each}_us_per_step"] for each in ("adds", "kernels", "allowed")]
        cells = [f"`{name}`", eager, f"{us[0]:.1f}", "", "", "", f"{row['resolution_us']:.1f}"]
        if "verdict" in row:
            cells[3:6] = [f"{us[1]:.1f}", f"{us[2]:.1f}", row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def dispatch_table(result: Result) -> str:
    """The cost of an event."""
    lines = ["| Listeners | `emit`, ns | a loop over a tuple, ns |", "|---|---|---|"]
    for row in result["rows"]:
        lines.append(f"| {row['listeners']} | {row['emit']:,.0f} | {row['loop']:,.0f} |")
    return "\n".join(lines)


def measured_on(*results: Result) -> str:
    """Where and when results were measured, on one machine."""
    machines = [result["machine"] for result in results]
    first = machines[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    commits, threads = ([str(m[key]) for m in machines] for key in ("commit", "threads"))
    return (
        f"Measured at commit {' and '.join(dict.fromkeys(commits))} on {first['date'][:10]}, "
        f"{first['cpu']}, {' and '.join(dict.fromkeys(threads))} thread(s), {versions}."
    )


if __name__ == "__main__":
    README.write_text(readme())
    print("wrote README.md")
