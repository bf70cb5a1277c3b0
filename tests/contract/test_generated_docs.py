"""What is generated is what code and results say today, and the stop table is right."""

import pytest

from benchmarks.readme import readme as readme_with_results
from docs.generate import PAGES, field_names, state_fields
from docs.marked import fill
from docs.stop_table import COLUMNS, FIRST, IN_MID_VAL, IN_VAL, LAST, PLACES, stop_row
from fitkit import Event, State
from tests.contract.source import ROOT

# Written by the loop for itself; no callback has to know them.
INTERNAL = {"needs", "started_at", "eager_requested", "error", "pending", "unpack", "log_owners"}
INTERNAL |= {"logged"}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name):
    # An assert would print both pages; the way out is one command.
    if (ROOT / name).read_text() != PAGES[name]():
        pytest.fail(f"{name} is out of date: run python -m docs.generate")


def test_the_figures_of_the_readme_are_those_of_the_result_files():
    if (ROOT / "README.md").read_text() != readme_with_results():
        pytest.fail("README.md is out of date: run python -m benchmarks.readme")


def test_a_block_is_filled_between_its_markers():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert fill(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="<!-- y -->"):
        fill(page, "y", "new")


def test_every_field_of_the_state_is_documented_and_nothing_else():
    documented = {name for _, names, _ in state_fields() for name in field_names(names)}
    slots = {name for name in State.__slots__ if not name.startswith("_")}
    assert documented == slots - INTERNAL


def test_fields_are_listed_in_the_order_of_their_lifetimes():
    lifetimes = [lifetime for lifetime, _, _ in state_fields()]
    assert [name.split()[0] for name in dict.fromkeys(lifetimes)] == ["Fit", "Pass", "Batch"]


def fires(event, place):
    """What still happens, as a set of columns."""
    cells = stop_row(event, place)[2:]
    return {column for column, cell in zip(COLUMNS, cells, strict=True) if cell}


ALWAYS = {"SAVE", "FIT_END", "CLOSE"}
REST = {"rest of the batch", "rest of the pass"}  # a validation pass is never cut short


# The promises, written by hand: the generated table may not drift from them.
@pytest.mark.parametrize(
    ("event", "place", "expected"),
    [
        (Event.BATCH_END, FIRST, {"PASS_END", *ALWAYS}),
        (Event.FORWARD, FIRST, {"rest of the batch", "PASS_END", *ALWAYS}),
        (Event.BATCH_END, LAST, {"PASS_END", "VALIDATE", "EPOCH_END", *ALWAYS}),
        (Event.VALIDATE, "after the pass", {"EPOCH_END", *ALWAYS}),
        (Event.EPOCH_END, "after the pass", ALWAYS),
        (Event.FORWARD, IN_VAL, {*REST, "EPOCH_END", *ALWAYS}),
        (Event.PASS_END, IN_VAL, {"EPOCH_END", *ALWAYS}),
        (Event.FORWARD, IN_MID_VAL, {*REST, "PASS_END", *ALWAYS}),
        (Event.FIT_BEGIN, "before the first batch", {"FIT_END", "CLOSE"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_stop_lets_fire_what_was_promised(event, place, expected):
    assert fires(event, place) == expected


def test_the_table_has_every_event_a_stop_can_be_requested_at():
    asked = {event for events in PLACES.values() for event in events}
    assert asked == set(Event) - {Event.EXCEPTION, Event.CLOSE}
