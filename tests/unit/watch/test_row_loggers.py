"""CSVLogger and JSONLLogger: the file holds what the history holds, whatever happens to it."""

import csv
import json
import math
import warnings
from pathlib import Path

import pytest

from fitkit import Checkpoint, CSVLogger, Event, JSONLLogger
from fitkit.watch.csv_logger import _cell
from tests.unit.watch.helpers import data, make_loop

LOGGERS = {"csv": CSVLogger, "jsonl": JSONLLogger}
ODD = ["a/b", "../../x", "a\x00b", "a\nb\r", "\x1b[31mred", "x" * 5000, "=1+1", "-2", "a,b;\"c'",
       "精度 ü", "\u2028", "\ud800", "\\x1b", "@", "'", ""]  # fmt: skip


def rows_of(path):
    """What a reader sees: numbers by name."""
    text = path.read_bytes().decode()
    if path.suffix == ".jsonl":
        return [
            {k: float(v) for k, v in json.loads(line, parse_constant=None).items()}
            for line in text.splitlines()
        ]
    return [
        {k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(text.split("\n"))
    ]


@pytest.fixture(params=LOGGERS)
def kind(request):
    return request.param


def loop_with(kind, tmp_path, *behind, **options):
    return make_loop(LOGGERS[kind](), *behind, val=data(8), run_dir=tmp_path, **options)


def test_the_file_is_the_history(kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    history = loop.fit(3)
    path = tmp_path / f"log.{kind}"
    assert rows_of(path) == history.rows
    assert len(rows_of(path)) == 3
    assert [*rows_of(path)[0]][:2] == ["epoch", "num_updates"]
    loop.fit(2)  # a second call goes on
    assert rows_of(path) == history.rows
    assert len(history) == 5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_each_row_is_there_when_its_epoch_is_over_with_what_was_logged_last(kind, tmp_path):
    loop, seen = loop_with(kind, tmp_path), []
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update(late=state.epoch + 0.5))
    loop.on(Event.EPOCH_BEGIN)(lambda state: seen.append(rows_of(tmp_path / f"log.{kind}")))
    loop.fit(3)
    assert [len(rows) for rows in seen] == [0, 1, 2]
    assert [row["late"] for row in seen[2]] == [0.5, 1.5]


def test_a_column_that_comes_later(kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    loop.on(Event.EPOCH_END, when=lambda state: state.epoch == 1)(
        lambda state: state.logs.update(late=7.0)
    )
    history = loop.fit(3)
    assert rows_of(tmp_path / f"log.{kind}") == history.rows
    assert ["late" in row for row in history.rows] == [False, True, False]
    if kind == "csv":
        lines = (tmp_path / "log.csv").read_text().splitlines()
        assert {line.count(",") for line in lines} == {lines[0].count(",")}


def test_a_pass_that_was_cut_short_has_a_row(kind, tmp_path):
    history = loop_with(kind, tmp_path).fit(max_steps=7)
    assert [row["num_updates"] for row in rows_of(tmp_path / f"log.{kind}")] == [5, 7]
    assert len(history) == 2


def test_numbers_that_are_none(kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    odd = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1 + 0.2, "e": 5e-324, "f": True}
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update(odd))
    loop.fit(1)
    if kind == "jsonl":
        [line] = (tmp_path / "log.jsonl").read_text().splitlines()
        found = json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
        assert [found[name] for name in "abc"] == ["NaN", "Infinity", "-Infinity"]
        row = {name: float(found[name]) for name in "abcdef"}
    else:
        text = (tmp_path / "log.csv").read_text().replace("True", "1")
        names, values = csv.reader(text.splitlines())
        row = {n: float(v) for n, v in zip(names, values, strict=True)}
    assert math.isnan(row["a"])
    assert [row[name] for name in "bcdef"] == [math.inf, -math.inf, 0.1 + 0.2, 5e-324, 1.0]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_no_name_can_break_out(name, kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update({name: 2.5}))
    loop.fit(2)
    text = (tmp_path / f"log.{kind}").read_bytes().decode()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert [p.name for p in tmp_path.iterdir()] == [f"log.{kind}"]
    shown = _cell(name) if kind == "csv" else name
    assert [row[shown] for row in rows_of(tmp_path / f"log.{kind}")] == [2.5, 2.5]
    assert not shown.startswith(tuple("=+-@")) or kind == "jsonl"


def test_different_names_stay_different():
    assert len({_cell(name) for name in ODD}) == len(ODD)


def resumed(kind, folder, *, epochs, **options):
    loop = loop_with(kind, folder, Checkpoint(), **options)
    return loop, loop.fit(epochs, resume="auto")


def crashed_after(kind, folder, tail):
    """Two saved epochs, one that was not saved, and what a crash left behind."""
    loop = loop_with(kind, folder, Checkpoint())
    loop.fit(2)
    path = folder / f"log.{kind}"
    saved = path.read_bytes()
    line = saved.splitlines(keepends=True)[-1]
    path.write_bytes(saved + line + tail)
    return path


@pytest.mark.parametrize("tail", [b"", b'{"epoch": 3, "los', b"3,20,0.01,0.4", b"\xff\x00"])
def test_a_resumed_run_has_every_row_once(kind, tail, tmp_path):
    path = crashed_after(kind, tmp_path, tail)
    loop, history = resumed(kind, tmp_path, epochs=4)
    assert loop.resumed_from is not None
    assert rows_of(path) == history.rows
    assert [row["epoch"] for row in rows_of(path)] == [0, 1, 2, 3]


def test_a_run_resumed_in_mid_pass(kind, tmp_path):
    whole = loop_with(kind, tmp_path / "whole")
    whole.fit(3)
    loop_with(kind, tmp_path, Checkpoint()).fit(max_steps=8)
    assert [row["num_updates"] for row in rows_of(tmp_path / f"log.{kind}")] == [5, 8]
    resumed(kind, tmp_path, epochs=3)
    expected = rows_of(tmp_path / "whole" / f"log.{kind}")
    assert rows_of(tmp_path / f"log.{kind}") == expected


def test_that_only_writing_anew_repairs_the_file(kind, tmp_path, monkeypatch):
    path = crashed_after(kind, tmp_path, b"torn")
    monkeypatch.setattr("fitkit.watch.row_file.RowFile.begin", lambda file, rows: None)
    monkeypatch.setattr(Path, "replace", lambda path, target: path.unlink())
    resumed(kind, tmp_path, epochs=4)
    assert b"torn" in path.read_bytes()


def test_the_file_of_another_run_is_kept(kind, tmp_path):
    for _ in range(3):
        loop_with(kind, tmp_path).fit(1)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"log.1.{kind}", f"log.2.{kind}", f"log.{kind}"]
    assert all(len(rows_of(tmp_path / name)) == 1 for name in names)


def test_a_file_that_somebody_changes_or_deletes_is_written_anew(kind, tmp_path):
    path = tmp_path / f"log.{kind}"
    loop = loop_with(kind, tmp_path)
    loop.on(Event.EPOCH_BEGIN, when=lambda s: s.epoch == 1)(lambda s: path.unlink())
    loop.on(Event.EPOCH_BEGIN, when=lambda s: s.epoch == 2)(lambda s: path.write_text("torn"))
    history = loop.fit(3)
    assert rows_of(path) == history.rows


def warned(loop, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = loop.fit(**options)
    return history, [str(warning.message) for warning in told]


def test_a_folder_that_cannot_be_written_is_one_warning(kind, tmp_path):
    (tmp_path / "file").write_text("")
    loop = loop_with(kind, tmp_path / "file" / "run")
    history, [message] = warned(loop, epochs=3)
    assert len(history) == 3
    assert message.startswith(f"{LOGGERS[kind].__name__} cannot write {tmp_path}")
    assert message.endswith("the rows are in loop.history.")


@pytest.mark.parametrize("written", [0, 3])
def test_a_full_disk_is_one_warning_and_leaves_whole_lines(kind, written, tmp_path, monkeypatch):
    path = tmp_path / f"log.{kind}"

    class Full:
        """A raw file that takes a few bytes more."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if written == 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:written])

    loop = loop_with(kind, tmp_path)
    real = Path.open

    def opened(self, mode="r", *args, **keywords):
        file = real(self, mode, *args, **keywords)
        return Full(file) if mode == "ab" and loop.state.epoch >= 3 else file  # 2 rows are in it

    monkeypatch.setattr(Path, "open", opened)
    history, messages = warned(loop, epochs=4)
    assert len(messages) == 1
    assert rows_of(path) == history.rows[:2]
    assert len(history) == 4


def test_other_processes_write_nothing(kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    loop.state.is_main = False
    loop.fit(1)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_and_predict_write_nothing(kind, tmp_path):
    loop = loop_with(kind, tmp_path)
    loop.evaluate()
    loop.predict(data(8))
    assert list(tmp_path.iterdir()) == []


def test_the_path_can_be_chosen(kind, tmp_path):
    path = tmp_path / "deep" / "name.txt"
    make_loop(LOGGERS[kind](path), run_dir=tmp_path).fit(1)
    assert path.read_text().count("\n") == (2 if kind == "csv" else 1)
