import io
import sys

import pytest

from fitkit.watch.console import Console, listing, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.93561, "0.9356"),
        (110.9115, "110.9115"),
        (1e-5, "1.000e-05"),
        (1e7, "1.000e+07"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_have_four_decimals_where_that_says_something(value, text):
    assert number(value) == text


def test_training_comes_first_and_names_for_plots_are_left_out():
    logs = {"val_loss": 2.0, "lr": 0.5, "speed/step_ms": 3.0, "loss": 1.0}
    assert listing(logs) == "loss 1.0000  val_loss 2.0000  lr 0.5000"


def test_a_line_holds_no_control_characters():
    file = io.StringIO()
    Console(file).line("loss\x1b[31m\r\n 1")
    assert file.getvalue() == "loss?[31m?? 1\n"


def test_what_the_encoding_lacks_becomes_a_question_mark():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    Console(file).line("Genauigkeit ü 精度")
    assert raw.getvalue() == b"Genauigkeit ? ??\n"


class Broken(io.StringIO):
    num_writes = 0

    def write(self, text):
        self.num_writes += 1
        raise BrokenPipeError


def test_a_broken_pipe_is_given_up():
    file = Broken()
    console = Console(file)
    console.line("a")
    console.line("b")
    assert file.num_writes == 1


def test_a_closed_file_is_no_terminal_and_no_error():
    file = io.StringIO()
    file.close()
    console = Console(file)
    assert not console.is_terminal
    console.line("a")


def test_a_process_without_standard_output_prints_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    console = Console()
    assert not console.is_terminal
    console.line("a")
