"""Every row of the matrix keeps its promise: equal to eager, or refused with its reason."""

import pytest

from tests.record_matrix.row import judge
from tests.record_matrix.rows import ROWS
from tests.record_matrix.table import PAGE, outcome, page, stored

# A few of each kind for every run of the tests; all of them with `pytest -m slow`.
QUICK = {
    *("Adam", "SGD(momentum)", "Adam(gradient_accumulation_steps=3)", "LossScaleOptimizer(Adam)"),
    *("Nadam", "CosineDecay(warmup_target)", "PiecewiseConstantDecay", "a callable", "Hinge"),
    *("Adam(foreach=True)", "Adam(fused=True)", "BatchNormalization", "Dropout(seed=1)"),
    *(
        "a layer with add_loss",
        "mixed_float16, loss scaled",
        "ExplainedVariance",
        "SpearmanCorrCoef",
    ),
}
OUTCOMES = {(e["group"], e["name"]): e["outcome"] for e in stored()}


def _check(row):
    verdict = judge(row)
    assert verdict.holds, verdict
    assert outcome(verdict) == OUTCOMES[row.group, row.name], verdict


@pytest.mark.parametrize("row", [r for r in ROWS if r.name in QUICK], ids=lambda row: row.name)
def test_recorded_is_eager_or_refused(row):
    _check(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.name not in QUICK], ids=lambda row: f"{row.group}/{row.name}"
)
def test_recorded_is_eager_or_refused_in_full(row):
    _check(row)


def test_the_quick_rows_exist():
    assert {row.name for row in ROWS} >= QUICK


def test_the_page_has_a_row_for_each_row():
    assert list(OUTCOMES) == [(row.group, row.name) for row in ROWS]
    if PAGE.read_text() != page(stored()):
        pytest.fail("docs/record.md is out of date: run python -m tests.record_matrix")
