import warnings

import numpy as np
import pytest
import torch

from fitkit import ConfigError, FitLoop, TensorLoader, TorchLoss, supervised
from fitkit.watch import images as module
from fitkit.watch.drawing import lines_of
from fitkit.watch.images import Images
from fitkit.watch.shown import images_of, layout_of, pixels_of
from tests.unit.watch.event_files import images as read_images


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: [(images, captions)]."""
    found = []
    original = module.tiles_picture

    def draw(pictures, captions, columns):
        found.append((pictures, captions))
        return original(pictures, captions, columns)

    monkeypatch.setattr(module, "tiles_picture", draw)
    return found


class Scores(torch.nn.Module):
    """Say what the first pixels of an image are."""

    def __init__(self, num):
        super().__init__()
        self.num = num
        self.zero = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return images.flatten(1)[:, : self.num] + self.zero


def run(inputs, targets, board, tmp_path, *, num=3, loss=None, **options):
    data = TensorLoader(inputs, targets, batch_size=8)
    loop = FitLoop(Scores(num), data, data, run_dir=tmp_path)
    optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
    loop.attach(supervised(loss=loss or torch.nn.CrossEntropyLoss(), optimizer=optimizer), board)
    loop.fit(1)
    return loop


def test_the_first_and_the_most_wrong_are_drawn(tmp_path, drawn):
    torch.manual_seed(0)
    inputs, labels = torch.randn(50, 6, 6), torch.randint(3, (50,))
    run(inputs, labels, Images(10, classes=["a", "b", "c"]), tmp_path)
    scores = inputs.flatten(1)[:, :3].softmax(1)
    said = scores.argmax(1)
    (first, captions), (worst, worst_captions) = drawn
    assert captions == [
        ("abc"[s], True) if s == r else (f"{'abc'[s]}, true {'abc'[r]}", False)
        for s, r in zip(said[:10], labels[:10], strict=True)
    ]
    others = scores.clone()
    others[torch.arange(50), labels] = -1
    behind = others.amax(1) - scores[torch.arange(50), labels]
    order = behind.argsort(descending=True)[:10]
    assert [text for text, _ in worst_captions] == [
        f"{'abc'[said[i]]}, true {'abc'[labels[i]]}" for i in order
    ]
    wanted = images_of(inputs[order], None)
    assert np.array_equal(worst, pixels_of(wanted))
    assert np.array_equal(first, pixels_of(images_of(inputs[:10], None)))
    found = read_images(tmp_path / "val")
    assert {tag: [x for x, _ in points] for tag, points in found.items()} == {
        "answers/samples": [7],
        "answers/most_wrong": [7],
    }


def test_numbers_are_told_beside_what_they_should_be(tmp_path, drawn):
    inputs = torch.zeros(20, 6, 6)
    targets = torch.arange(20.0)[:, None]
    run(inputs, targets, Images(4), tmp_path, num=1, loss=torch.nn.MSELoss())
    assert drawn[0][1][2] == ("0, true 2", None)
    assert [text for text, _ in drawn[1][1]] == [f"0, true {n}" for n in (19, 18, 17, 16)]


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (1, 6, 6), (6, 6, 3), (3, 6, 6), (300, 200)])
def test_inputs_of_all_shapes_are_drawn(tmp_path, drawn, shape):
    torch.manual_seed(0)
    run(torch.rand(20, *shape), torch.randint(3, (20,)), Images(9), tmp_path)
    height, width, channels = drawn[0][0].shape[1:]
    assert (height, width) == ((75, 50) if shape[0] == 300 else (6, 6))
    assert channels == (3 if 3 in shape else 1)


def test_flat_rows_are_images_if_it_is_said_how(tmp_path, drawn):
    inputs = torch.rand(20, 36)
    run(inputs, torch.randint(3, (20,)), Images(9, shape=(6, 6)), tmp_path)
    assert np.array_equal(drawn[0][0], pixels_of(inputs[:9].reshape(9, 6, 6, 1)))
    with pytest.raises(ConfigError, match="does not fit inputs of shape"):
        run(inputs, torch.randint(3, (20,)), Images(shape=(5, 5)), tmp_path)


def test_inputs_that_are_no_images_are_one_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"Images draws nothing: the inputs, \(8, 36\)") as told:
        run(torch.rand(20, 36), torch.randint(3, (20,)), Images(), tmp_path)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = Images()
        quiet.warns = False
        run(torch.rand(20, 36), torch.randint(3, (20,)), quiet, tmp_path)


def test_pixels_are_stretched_only_where_they_must_be():
    assert pixels_of(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert pixels_of(torch.tensor([0.0, 16.0])).tolist() == [0, 255]
    assert pixels_of(torch.tensor([-1.0, 1.0])).tolist() == [0, 255]
    assert pixels_of(torch.tensor([0, 7, 255], dtype=torch.uint8)).tolist() == [0, 7, 255]


@pytest.mark.parametrize("shape", [(8,), (8, 8, 2), "8x8", (0, 8), (8.0, 8), 64])
def test_a_shape_no_image_has_is_refused(shape):
    with pytest.raises(ConfigError, match="expected"):
        Images(shape=shape)


def test_a_small_last_batch_does_not_turn_logits_into_probabilities(tmp_path, drawn):
    inputs = torch.zeros(9, 2, 2)
    inputs[:, 0, 0] = torch.tensor([-1.0, 2, 3, -2, 1, 1, 1, 1, 0.3])
    targets = (inputs[:, 0, :1] > 0).float()
    run(inputs, targets, Images(9), tmp_path, num=1, loss=torch.nn.BCEWithLogitsLoss())
    captions = drawn[0][1]
    assert captions == [("0" if t == 0 else "1", True) for t in targets[:, 0]]
    assert len(drawn[1][1]) == 9


def test_names_for_another_number_of_classes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="got 2 names of classes, the model has 3"):
        run(torch.rand(9, 2, 2), torch.arange(9) % 3, Images(classes=["a", "b"]), tmp_path)


def test_what_is_not_finite_is_said_and_darkens_nothing(tmp_path, drawn):
    inputs = torch.full((9, 2, 2), 0.5)
    inputs[4, 0, 1], inputs[5, 0, 1] = torch.nan, torch.inf
    board = Images(classes=["a" * 99, "b", "c"])
    loss = TorchLoss(lambda outputs, _: outputs[:1].sum())  # keeps the weights finite
    run(inputs, torch.arange(9) % 3, board, tmp_path, loss=loss)
    (pixels, captions), (_, worst) = drawn
    assert pixels[0].min() == pixels[8].max() == 128
    assert captions[4] == ("not finite, true b", False)
    assert {text for text, _ in worst[:2]} == {"not finite, true b", "not finite, true c"}
    assert captions[0] == (f"{'a' * 7}...{'a' * 30}", True)


@pytest.mark.parametrize(
    ("sides", "shape", "layout"),
    [
        ((28, 28), None, None),
        ((16, 8), None, None),
        ((17, 8), None, 1),
        ((3, 50), None, 2),
        ((50, 1), None, 1),
        ((50, 20), (50, 20), (50, 20)),
        ((12, 12), "series", 1),
        ((12, 13), "series", 2),
        ((50,), "series", 1),
        ((50,), None, None),
        ((3, 8, 8), "series", None),
    ],
)
def test_what_inputs_are(sides, shape, layout):
    inputs = torch.rand(5, *sides)
    assert layout_of(inputs, shape) == layout
    drawn = images_of(inputs, layout)
    if layout in (1, 2):
        series = inputs if len(sides) == 2 else inputs[..., None]
        assert torch.equal(drawn, (series if layout == 1 else series.mT)[..., :6])
    elif len(sides) == 2:
        assert drawn.shape == (5, *sides, 1)


def test_a_long_series_is_thinned_out():
    inputs = torch.arange(1000.0).reshape(1, 1000, 1)
    assert torch.equal(images_of(inputs, 1), inputs[:, ::4])


def test_series_are_lines_from_the_smallest_to_the_largest_value():
    up = np.linspace(0, 1, 50, dtype=np.float32)
    series = np.stack([up, 1 - up, np.full(50, np.nan)])[..., None] * [1, 1e6]
    rising, falling, empty = lines_of(series.astype(np.float32))
    assert rising.shape == (60, 108, 3)
    assert np.abs(rising[:, ::-1] - falling.astype(float)).mean() < 2  # where lines are rounded
    assert (empty[1:-1, 1:-1] == 255).all()
    ink = (rising[1:-1, 1:-1] != 255).any(2)
    heights = np.argwhere(ink.any(1)).ravel()
    assert heights[0] <= 3 <= 53 <= heights[-1]
    middles = [np.argwhere(column).mean() for column in ink.T if column.any()]
    assert np.corrcoef(middles, range(len(middles)))[0, 1] < -0.999


@pytest.mark.parametrize("values", [np.zeros((2, 1, 1)), np.full((1, 4, 2), np.inf)])
def test_series_without_a_range_are_drawn(values):
    assert lines_of(values.astype(np.float32)).shape == (len(values), 60, 108, 3)


@pytest.mark.parametrize("sides", [(3, 5, 8), (10, 2)])
def test_batches_of_several_sizes_are_drawn_with_a_margin(tmp_path, drawn, sides):
    torch.manual_seed(0)
    batches = []
    for more in (0, 7, 2):
        first, *rest = (side + more * (side in (8, 10)) for side in sides)
        batches.append((torch.rand(4, first, *rest), torch.randint(3, (4,))))
    loop = FitLoop(Scores(3), batches, batches, run_dir=tmp_path)
    optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
    board = Images(12)
    loop.attach(supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer), board)
    loop.fit(1)
    for pixels, captions in drawn:
        assert len(pixels) == len(captions) == 12
    if len(sides) == 3:
        assert drawn[0][0].shape == (12, 5, 15, 3)
        assert np.array_equal(drawn[0][0][:4, :, :8], pixels_of(batches[0][0].movedim(1, -1)))
        assert (drawn[0][0][:4, :, 8:] == 0).all()
    else:
        assert drawn[0][0].shape == (12, 60, 108, 3)
        shorter, longer = drawn[0][0][:4, 1:-1, 68:-1], drawn[0][0][4:8, 1:-1, 68:-1]
        assert (shorter == 255).all()
        assert not (longer == 255).all()
