"""What a history offers after a run: the best epoch, a table, a picture; and what it refuses."""

import math
import sys

import matplotlib
import numpy as np
import pytest
import torch

from fitkit import ConfigError, Event, History, UnknownLogError
from fitkit.loop import host_number
from tests.unit.loop.helpers import make_loop

matplotlib.use("Agg")


def history_of(**columns):
    history = History()
    for epoch, values in enumerate(zip(*columns.values(), strict=True)):
        row = {k: v for k, v in zip(columns, values, strict=True) if v is not None}
        history.rows.append(row | {"epoch": epoch, "num_updates": 10 * (epoch + 1)})
    return history


LOSSES = {"loss": [3.0, 2.0, 1.0, 0.5], "val_loss": [3.0, 1.5, 1.25, 2.0]}


def test_a_name_nobody_logged_is_a_key_error_that_names_the_nearest():
    history = history_of(**LOSSES)
    with pytest.raises(KeyError) as caught:
        history["val_los"]
    first, *_, last = str(caught.value).splitlines()
    assert first == "the history has no 'val_los': no epoch has logged it"
    assert "'val_loss'" in last
    assert "val_los" not in history
    with pytest.raises(UnknownLogError, match=r"it is empty(.|\n)*loop\.fit"):
        History()["loss"]
    with pytest.raises(UnknownLogError, match="no 3"):
        history[3]


def test_epochs_that_did_not_log_a_value_are_left_out():
    assert history_of(loss=[1.0, 2.0], val_loss=[None, 4.0])["val_loss"] == [4.0]


@pytest.mark.parametrize(
    ("columns", "epoch"),
    [
        (LOSSES, 2),
        ({"loss": [3.0, 1.0, 1.0, 2.0]}, 1),
        ({"loss": [0.0, 1.0], "val_b_loss": [2.0, 1.0], "val_a_loss": [1.0, 2.0]}, 1),
        ({"loss": [math.nan, 5.0, math.nan]}, 1),
        ({"loss": [0.0, 1.0], "val_loss": [None, 4.0]}, 1),
    ],
)
def test_the_best_epoch_is_that_of_the_lowest_loss_of_validation(columns, epoch):
    assert history_of(**columns).best()["epoch"] == epoch


def test_the_best_epoch_by_another_value():
    history = history_of(loss=[1.0, 2.0, 3.0], accuracy=[0.5, 0.9, 0.9], score=[1.0, 3.0, 2.0])
    assert history.best("accuracy")["epoch"] == 1
    assert history.best("score", mode="max")["epoch"] == 1
    assert history.best("score", mode="min")["epoch"] == 0
    with pytest.raises(ConfigError, match="score"):
        history.best("score")
    with pytest.raises(UnknownLogError, match="auc"):
        history.best("auc")


def curves(axes):
    """The curves of a chart by their label, without the marks."""
    named = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    return {line.get_label(): list(line.get_ydata()) for line in named}


def test_training_and_validation_of_one_metric_are_one_chart():
    columns = {"lr": [0.1] * 4, "val_near_loss": [1.0, 2.0, 3.0, 4.0], **LOSSES}
    drawn = history_of(**columns, mae=[4.0] * 4, **{"speed/step_ms": [1.0] * 4}).plot()
    charts = {axes.get_title(): curves(axes) for axes in drawn}
    assert list(charts) == ["loss", "mae"]
    best = charts["loss"].pop("best: epoch 2, 1.25")
    assert charts["loss"] == {
        "train": LOSSES["loss"],
        "val": LOSSES["val_loss"],
        "val_near": [1.0, 2.0, 3.0, 4.0],
    }
    assert "best: epoch 2" in charts["mae"]
    assert best == [0, 1]  # a line from top to bottom
    star = [line for line in drawn[0].get_lines() if line.get_marker() == "*"]
    assert [line.get_xydata().tolist() for line in star] == [[[30.0, 1.25]]]


def test_the_charts_asked_for_and_the_marks_of_epochs():
    history = history_of(loss=list(range(1, 101)), lr=[0.1] * 100)
    [axes] = history.plot(["lr"], figure=matplotlib.figure.Figure())
    [top] = axes.child_axes
    assert [label.get_text() for label in top.get_xticklabels()][:3] == ["0", "10", "20"]
    assert list(top.get_xticks())[:3] == [10, 110, 210]
    with pytest.raises(UnknownLogError, match="'l'"):
        history.plot(["l"])
    with pytest.raises(UnknownLogError, match="it is empty"):
        History().plot()


def test_one_name_is_drawn_as_a_list_of_it_is(tmp_path):
    history = history_of(**LOSSES, mae=[4.0, 3.0, 2.0, 1.0])
    [one], [listed] = history.plot("mae"), history.plot(["mae"])
    assert curves(one) == curves(listed)
    assert curves(one)["train"] == [4.0, 3.0, 2.0, 1.0]
    history.save_plot(tmp_path / "a.svg", "mae")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UnknownLogError, match="the history has no 'maee': no epoch"):
        history.plot("maee")
    [axes] = history.plot("epoch")
    assert curves(axes)["train"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        (LOSSES, [], "nothing to draw: no name was given(.|\n)*'loss', 'val_loss'"),
        ({}, [], "nothing to draw: no name was given(.|\n)*nothing yet"),
        ({"lr": [0.1], "a/b": [1.0]}, None, r"neither a loss nor a metric(.|\n)*plot\(\"lr\"\)"),
        ({"top_k": [1.0]}, ["k"], "the history has no 'k'"),  # it is no val_k either
        (LOSSES, [3], "the history has no 3"),
    ],
)
def test_that_nothing_to_draw_is_said(columns, names, message):
    with pytest.raises(UnknownLogError, match=message):
        history_of(**columns).plot(names)


def test_any_name_can_be_drawn(tmp_path):
    names = ["loss", "a$b_^{x", "\x1b[31mred", "_hidden", "x" * 5000, "a/b", "\n", ""]
    history = history_of(**dict.fromkeys(names, [1.0, 2.0]))
    history.save_plot(tmp_path / "a.png", names)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_a_picture_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (history_of(**LOSSES).plot, lambda: history_of(**LOSSES).save_plot("a.png")):
        with pytest.raises(ImportError, match=r"matplotlib(.|\n)*pip install 'fitkit\[plots\]'"):
            draw()


def test_a_table_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pandas(.|\n)*pip install pandas"):
        history_of(**LOSSES).to_pandas()


def test_the_table_has_the_counts_in_front(monkeypatch):
    class Pandas:
        def DataFrame(self, rows, columns):
            return rows, columns

    monkeypatch.setitem(sys.modules, "pandas", Pandas())
    history = history_of(**LOSSES)
    assert history.to_pandas() == (history.rows, ["epoch", "num_updates", "loss", "val_loss"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", "text", r"state\.logs\['x'\] is 'text', a str, expected a number"),
        ("x", None, "a NoneType"),
        ("x", np.ones(2), r"shape \(2,\)"),
        ("x", 1j, r"state\.logs\['x'\] is 1j, a complex number, expected a real one\nLog abs"),
        ("x", np.complex64(2), r"is \(2\+0j\), a complex number"),
        ("x", torch.tensor(1j), "is 1j, a complex number"),
        ("x", np.str_("text"), "is 'text', a str, expected a number"),
        ("x", np.array(None), "a NoneType"),
        ("x", np.datetime64("2020-01-01"), "a date, expected"),
        (3, 1.0, r"state\.logs\[3\] has a int for a name"),
    ],
)
def test_what_is_no_number_is_refused(name, value, message):
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: state.logs.update({name: value}))
    with pytest.raises(TypeError, match=message):
        loop.fit(epochs=1)


@pytest.mark.parametrize("power", [400, 6000])  # Python itself refuses to print the second
def test_an_int_that_no_float_can_hold_is_refused(power):
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: state.logs.update(x=-(10**power)))
    bits = (10**power).bit_length()
    with pytest.raises(OverflowError, match=rf"logs\['x'\] is an int of {bits} bits(.|\n)*log10"):
        loop.fit(epochs=1)
    assert loop.history.rows == []


def test_that_the_check_is_what_keeps_it_out(monkeypatch):
    monkeypatch.setattr(host_number, "_that_a_float_can_hold", lambda name, value: value)
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: state.logs.update(x=10**400))
    assert loop.fit(epochs=1)["x"] == [10**400]


def test_a_large_int_that_a_float_can_hold_stays_what_it_is():
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: state.logs.update(x=2**70 + 1))
    assert loop.fit(epochs=1)["x"] == [2**70 + 1]


HALF = [np.float32(0.5), np.longdouble(0.5), np.array(0.5), torch.tensor(0.5), 0.5]


@pytest.mark.parametrize("value", HALF)
def test_numbers_of_all_kinds_become_those_of_python(value):
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: state.logs.update(x=value))
    [found] = loop.fit(epochs=1)["x"]
    assert (type(found), found) == (float, 0.5)
