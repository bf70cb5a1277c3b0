"""A real run on real digits with everything on, in a real TensorBoard, in a real browser.

`make browser` runs it. SCREENSHOTS=docs/img make browser keeps what the pages look like.
"""

import io
import json
import os
import random
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from fitkit import (
    Callback,
    Checkpoint,
    Cosine,
    Event,
    FitLoop,
    LRSchedule,
    Phase,
    Profile,
    TensorBoard,
    TensorLoader,
    supervised,
)
from tests.browser.board import browsing, chromium, get, open_tab, served
from tests.unit.watch.helpers import make_loop as small_loop

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
EPOCHS, UPDATES = 8, 8 * 45
DRAWN = "all => all.filter(i => i.naturalWidth > 100).map(i => i.src)"
SCREENSHOTS = os.environ.get("SCREENSHOTS")


class Losses(Callback):
    """Keep the loss of every update; fail once, as a machine does."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self, fails_at=None):
        self.fails_at = fails_at
        self.losses = {}

    def on_batch_end(self, state):
        self.losses[state.num_updates] = float(state.loss)
        if state.num_updates == self.fails_at:
            raise ZeroDivisionError


def make_loop(run_dir, losses, *more, units, lr):
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    held_out = np.arange(len(x)) % 5 == 4
    layers, inputs = keras.layers, keras.Input((8, 8, 1))
    hidden = layers.Conv2D(16, 3, activation="relu", padding="same", name="conv")(inputs)
    hidden = layers.Flatten()(layers.MaxPooling2D()(hidden))
    hidden = layers.Dense(units, activation="relu", name="hidden")(hidden)
    model = keras.Model(inputs, layers.Dense(10, name="digit")(layers.Dropout(0.2)(hidden)))
    train = TensorLoader(x[~held_out], y[~held_out], batch_size=32, shuffle=True, seed=1)
    loop = FitLoop(model, train, TensorLoader(x[held_out], y[held_out]), run_dir=run_dir)
    loop.attach(
        supervised(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(lr),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        ),
        LRSchedule(Cosine(lr, steps=UPDATES, warmup=45)),
        TensorBoard.everything(hparams={"units": units}),
        Checkpoint(),
        losses,
        *more,
    )
    return loop


@pytest.fixture(scope="module")
def runs(page, tmp_path_factory):
    """The folder above two runs; history and losses of the second, which was cut and resumed."""
    above = tmp_path_factory.mktemp("board")
    folder = above / "runs"
    profile = Profile(active=3, file=io.StringIO())
    make_loop(folder / "narrow", Losses(), profile, units=16, lr=1e-3).fit(EPOCHS)
    wide = {"units": 64, "lr": 3e-3}
    first, second = Losses(fails_at=150), Losses()
    with pytest.raises(ZeroDivisionError):
        make_loop(folder / "wide", first, **wide).fit(EPOCHS)
    history = make_loop(folder / "wide", second, **wide).fit(EPOCHS, resume="auto")
    return above, history, first.losses | second.losses


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of the browser."""
    pytest.importorskip("playwright")
    if chromium() is None:
        pytest.skip("no Chromium: install it from the system's packages, apt-get install chromium")
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def board(runs, page):
    """The page, and the address where it sees the second run."""
    with served(runs[0], "runs/wide") as address:
        yield page, address


def shoot(page, name):
    """Keep what the page looks like, in 128 colors: a third of the bytes."""
    if SCREENSHOTS:
        from PIL import Image

        path = Path(SCREENSHOTS) / f"tensorboard_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)
        image = Image.open(path).convert("RGB")
        image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def shows(page, *texts):
    """Demand that the page shows all these texts."""
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for(state="visible")


# What the package torch-tb-profiler looks for in all folders below the one it is given: a worker,
# and when its trace began.
TRACE = re.compile(r"(.*?)(\.\d+)?\.pt\.trace\.json(?:\.gz)?")


def test_the_trace_is_where_the_plug_in_looks_for_it(runs):
    above, *_ = runs
    found = [path for path in above.rglob("*") if TRACE.fullmatch(path.name)]
    assert [path.parent.relative_to(above).as_posix() for path in found] == ["runs/narrow/profile"]
    worker, began = TRACE.fullmatch(found[0].name).groups()
    assert re.fullmatch(r"[\w-]+_\d+", worker)
    assert len(began) == len(".1700000000000")  # ms since 1970
    events = json.loads(found[0].read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert names.count("FORWARD Forward") == 3
    assert sum(name.startswith("ProfilerStep#") for name in names) == 3


def test_scalars(board, runs):
    page, address = board
    open_tab(page, address, "scalars")
    shoot(page, "scalars")
    shows(page, "epoch/loss", "epoch/accuracy", "epoch/lr", "train", "val")


def test_time_series_show_the_numbers_of_the_run(board, runs):
    page, address = board
    open_tab(page, address, "timeseries")
    page.locator('input[placeholder="Filter tags (regex)"]').fill("^epoch/")
    page.keyboard.press("Escape")
    page.wait_for_timeout(1500)
    shoot(page, "timeseries")
    _, history, _ = runs
    shows(page, f"{history['accuracy'][-1]:.4g}", f"{history['val_accuracy'][-1]:.4g}")


def test_the_resumed_run_is_one_curve(board, runs):
    _, address = board
    points = get(address, "scalars/scalars?tag=step%2Floss&run=train")
    assert [step for _, step, _ in points] == list(range(1, UPDATES + 1))
    losses = runs[2]
    assert [value for *_, value in points] == pytest.approx([losses[s] for _, s, _ in points])
    tables = get(address, "histograms/histograms?tag=weights%2Fhidden%2Fkernel&run=train")
    assert [step for _, step, _ in tables] == [1, 101, 201, 301]


def test_custom_scalars_put_training_and_validation_together(board):
    page, address = board
    open_tab(page, address, "custom_scalars")
    shoot(page, "custom_scalars")
    shows(page, "Training and validation", "loss", "accuracy", "Every update", "All layers")
    assert page.get_by_text("Matches (2)").count() >= 2  # train and val
    page.get_by_text("update ratio", exact=True).scroll_into_view_if_needed()
    assert page.get_by_text("Matches (6)").count() >= 1  # a weight each


def test_images(board):
    page, address = board
    open_tab(page, address, "images")
    page.wait_for_timeout(1500)
    shoot(page, "images")
    shows(page, "answers/confusion", "answers/samples", "answers/most_wrong")
    drawn = page.locator("img").evaluate_all(DRAWN)
    assert len(set(drawn)) == 3, drawn
    assert page.get_by_text(f"step {UPDATES}").count() == 3


def test_graph(board):
    page, address = board
    open_tab(page, address, "graphs")
    page.wait_for_timeout(1500)
    shoot(page, "graphs")
    shows(page, "Main Graph")
    drawn = page.locator("svg text, svg title").all_text_contents()
    assert {"conv", "hidden", "digit", "inputs", "outputs"} <= {t.strip() for t in drawn}


def test_histograms(board):
    page, address = board
    open_tab(page, address, "histograms")
    shoot(page, "histograms")
    shows(page, "gradients/conv/kernel", "gradients/hidden/kernel")
    assert page.locator("svg path").count() > 20


def test_text(board):
    page, address = board
    open_tab(page, address, "text")
    shoot(page, "text")
    shows(page, "run/loop", "run/settings")
    assert page.get_by_text("FitLoop(Functional) on cpu").count() == 2  # cut and resumed
    assert page.get_by_text("run/versions").count() >= 1


def test_pr_curves(board):
    page, address = board
    open_tab(page, address, "pr_curves")
    shoot(page, "pr_curves")
    shows(page, "pr/0", "pr/1")
    assert page.get_by_text(f"step {UPDATES}").count() >= 2


def test_hparams_compare_the_runs(runs, page):
    folder, history, _ = runs
    with served(folder, "runs") as address:
        open_tab(page, address, "hparams")
        shoot(page, "hparams")
        shows(page, "narrow", "wide", "units", "optimizer", "val_loss", "16.000", "64.000")
        shows(page, f"{history['val_loss'][-1]:#.5g}")
        assert page.get_by_text("-1.0000").count() == 0


def test_hostile_names_are_text_on_the_page(page, tmp_path):
    loop = small_loop(TensorBoard(), run_dir=tmp_path / "run")
    hostile = ["<img src=x onerror=alert(1)>", "\x1b[31mred", "x" * 5000, "a b/../c"]

    @loop.on(Event.EPOCH_END)
    def log(state):
        state.logs.update({name: random.random() for name in hostile})

    loop.fit(2)
    told = []
    with served(tmp_path, "run") as address:
        page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        open_tab(page, address, "timeseries")
        shows(page, "epoch/loss")
    assert told == []
