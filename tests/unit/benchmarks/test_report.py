"""Tables, page and comparison say what the rows say, and nothing else."""

import base64
import json
import re

import pytest

from benchmarks.suite import charts, compare, page, report, tables, words
from tests.unit.benchmarks.rows import MACHINE, OFF, example, result, row, untimed


def test_a_case_is_a_table_with_the_fastest_first_and_reasons_last():
    (rows,) = tables.by_case(example()).values()
    header, *lines = tables.case_table(rows)
    assert [line[0] for line in lines] == [
        "fitkit Record inductor", "hand loop, Keras parts", "Lightning", "skorch", "Composer",
    ]  # fmt: skip
    assert dict(zip(header, lines[0], strict=True)) == {
        "contestant": "fitkit Record inductor",
        "us per step (p5 to p95)": "1,000 (900 to 1,100)",
        "wall us": "1,000",
        "samples/s": "32,000",
        "of the hand loop": "0.2",
        "above bare kernels, us": "700",
        "first step, s": "1.2",
        "loss": "equal",
        "own Benchmark": "+5.0%",
        "note": "its own Benchmark says 950 us",
    }
    assert lines[2][-1].startswith("not the same training: its loss after 48 steps")
    assert lines[3][1:] == [""] * 8 + ["ImportError: no <skorch>"]


def test_the_overview_has_a_line_per_contestant_and_a_column_per_case():
    other = [row("hand-keras", "hand loop, Keras parts", "hand", 70.0, case="cnn", title="CNN")]
    lines = tables.overview(result(*example()["rows"], *other))
    assert lines[0][1:] == ["MLP, batch 32", "CNN"]
    assert ["hand loop, Keras parts", "5,000 (1)", "70 (0.014)"] in lines
    assert ["Lightning", "8,000 (1.6) *", ""] in lines
    assert "skorch" not in [line[0] for line in lines]


def test_cases_are_points_of_the_curves_that_go_through_them():
    base = row("fitkit", "fitkit eager", "fitkit", 300.0, case="mlp-32")
    other = row("ignite", "Ignite", "peer", 300.0, case="mlp-32")
    lines = tables.curves(result(*example()["rows"], base, other))
    assert lines == {"batch": {"fitkit eager": [(8, 80.0), (32, 300.0), (128, 1280.0)]}}


def test_headlines_compare_the_best_recorded_with_the_best_other():
    assert list(words.headlines(example())) == [
        "MLP, batch 32: fitkit Record inductor takes 1,000 us per step, hand loop, Keras parts, "
        "the fastest other, 5,000 us (5.0 times as much in the same rounds)."
    ]


def test_doubts_name_everything_that_does_not_hold():
    doubts = "\n".join(words.doubts(example()))
    assert "Lightning: its loss after 48 steps is 20.0% off" in doubts
    assert "the clock says 1,000 us, Benchmark 950 us" in doubts
    assert "skorch failed: ImportError" in doubts
    assert "There was no time for: CNN on 32x32x3, batch 32." in doubts
    assert list(words.doubts(result(row("fitkit", "fitkit", "fitkit", 1.0)))) == []


def test_a_busy_machine_is_told():
    rows = [row("a", "A", "hand", 130.0, cpu_us_per_step={"median": 100.0})]
    (doubt,) = words.doubts(result(*rows))
    assert doubt == "The machine was busy: steps took 1.3 times their CPU time. Measure again."
    rows[0]["threads"] = 2
    assert list(words.doubts(result(*rows))) == []


def test_the_page_stands_alone():
    text = page.page({"": example()})
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 3  # overview, case, curve
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert base64.b64decode(sources[0].split(",")[1]).startswith(b"\x89PNG")
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert "ImportError: no &lt;skorch&gt;" in text


def test_verdicts_have_their_color_and_notes_stand_below_names():
    text = page.html([["what", "MLP"], ["a against b", "0.85 (0.8 to 0.9) NOT HELD"]], "verdicts")
    assert '<td class="missed">0.85<br><small>0.8 to 0.9</small><br>NOT HELD</td>' in text
    text = page.html([["who", "us", "note"], ["A", "5 (4 to 6)", "odd"], ["B", "", "gone"]])
    assert '<tr><td>A<div class="note">odd</div></td><td>5 (4 to 6)</td></tr>' in text
    assert '<tr><td>B</td><td class="note" colspan="1">gone</td></tr>' in text


def test_a_report_is_a_page_a_markdown_file_and_pictures(tmp_path, capsys):
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(example()))
    assert report.report([path]) == 0
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["suite.html", "suite.json", "suite.md", "suite.png", "suite_curves.png"]
    text = (tmp_path / "suite.md").read_text()
    assert "| fitkit Record inductor | 1,000 (900 to 1,100) |" in text
    assert "| us per step at | 8 | 128 |" in text
    assert "| fitkit eager | 80 | 1,280 |" in text
    assert "5.0 times as much" in capsys.readouterr().out


def test_the_same_result_gives_the_same_picture():
    assert charts.overview_chart(example()) == charts.overview_chart(example())


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no result of `python -m benchmarks run`"):
        report.read(tmp_path / "missing.json")


# -- compare ---------------------------------------------------------------------------------------


@pytest.fixture
def said(tmp_path):
    def compared(old, new):
        for name, each in {"old": old, "new": new}.items():
            (tmp_path / name).write_text(json.dumps(each))
        return compare.compare(tmp_path / "old", tmp_path / "new").splitlines()

    return compared


def test_compare_tells_changes_beyond_the_spread_and_no_others(said):
    old = result(row("a", "A", "hand", 1000.0), row("b", "B", "peer", 1000.0, spread=0.3),
                 row("c", "C", "peer", 100.0))  # fmt: skip
    new = result(row("a", "A", "hand", 500.0), row("b", "B", "peer", 1400.0, spread=0.3),
                 row("c", "C", "peer", 150.0))  # fmt: skip
    assert said(old, new)[1:] == [
        "faster   0.50 x  MLP, batch 32, A: 1,000 us (900 to 1,100) -> 500 us (450 to 550)",
        "SLOWER   1.50 x  MLP, batch 32, C: 100 us (90 to 110) -> 150 us (135 to 165)",
        "2 of 3 changed beyond the spread",
    ]


def test_a_machine_that_is_slower_today_is_no_change(said):
    old = result(row("a", "A", "hand", 1000.0, ratio=0.5), row("b", "B", "hand", 100.0, ratio=0.1))
    new = result(row("a", "A", "hand", 2000.0, ratio=0.5), row("b", "B", "hand", 100.0, ratio=0.2))
    lines = said(old, new)
    assert lines[1].startswith("SLOWER   2.00 x  MLP, batch 32, B: 100 us")
    assert lines[2] == "1 of 2 changed beyond the spread"


def test_who_trains_something_else_leads_no_headline():
    rows = example()["rows"]
    rows[2]["fair"] = OFF
    assert list(words.headlines(result(*rows))) == []


def test_compare_tells_rows_that_failed_or_train_otherwise(said):
    old = result(row("a", "A", "hand", 1000.0), row("b", "B", "peer", 1000.0))
    off = {"ok": False, "difference": 0.5, "why": "its loss is off"}
    new = result(row("a", "A", "hand", 1000.0, fair=off), untimed("b", "B", "peer", error="boom"),
                 untimed("c", "C", "peer", error="gone"))  # fmt: skip
    lines = said(old, new)
    assert "0 of 1 changed beyond the spread" in lines
    assert "MLP, batch 32, B: 1,000 us (900 to 1,100) -> boom" in lines
    assert "MLP, batch 32, C: not there -> gone" in lines
    assert "ANOTHER LOSS  MLP, batch 32, A: its loss is off" in lines


def test_compare_tells_that_the_machines_differ(said):
    other = {**result(), "machine": {**MACHINE, "cpu": "Other CPU"}}
    assert "NOT THE SAME cpu: Some CPU -> Other CPU" in said(result(), other)
    assert not any(line.startswith("NOT") for line in said(result(), result()))
