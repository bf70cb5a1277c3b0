"""ImageGrid writes what the sample function returns, as TensorBoard reads it."""

import struct
import zlib

import pytest
import torch

from fitkit import DataError, FitLoop, ImageGrid, TensorBoard, TensorLoader, supervised
from fitkit.watch.png import grid_of, png_of


def make_loop(tmp_path, sample, **options):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    data = TensorLoader(torch.randn(24, 4), torch.randn(24, 4), batch_size=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = FitLoop(model, data, run_dir=tmp_path)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), TensorBoard())
    return loop.attach(ImageGrid(lambda: sample(model), **options))


def written(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "images"))
    events.Reload()
    return events


def pixels(png):
    """Decode a PNG of filter 0 by hand."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    start = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[start - 8 : start - 4])[0]
    raw = zlib.decompress(png[start : start + length])
    lines = torch.tensor(list(raw)).reshape(height, -1)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3}[kind])


def test_a_grid_per_epoch_at_the_updates_done(tmp_path):
    def sample(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return torch.full((5, 8, 6, 1), 0.5)

    loop = make_loop(tmp_path, sample)
    loop.fit(epochs=3)
    assert loop.model.training
    images = written(tmp_path).Images("samples")
    assert [image.step for image in images] == [3, 6, 9]
    picture = pixels(images[0].encoded_image_string)
    assert picture.shape == (16, 18, 1)  # 3 columns, 2 rows
    assert (picture[:8] == 128).all()
    assert (picture[8:, 12:] == 0).all()


def test_only_every_second_epoch(tmp_path):
    sample = torch.rand(4, 3, 8, 8)
    make_loop(tmp_path, lambda _: sample, every="2 epochs", tag="made", columns=4).fit(epochs=4)
    images = written(tmp_path).Images("made")
    assert [image.step for image in images] == [6, 12]
    assert (images[0].height, images[0].width) == (8, 32)


def test_what_is_drawn_is_what_was_given():
    images = torch.randint(0, 256, (6, 4, 5, 3), dtype=torch.uint8)
    picture = pixels(png_of(grid_of(images, 3)))
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        cut = picture[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
        assert (cut == image).all()


def test_another_library_reads_the_file():
    image = pytest.importorskip("PIL.Image")
    import io

    picture = torch.randint(0, 256, (7, 9, 3), dtype=torch.uint8)
    read = image.open(io.BytesIO(png_of(picture)))
    assert list(read.tobytes()) == picture.flatten().tolist()


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 5, 5, 5), (0, 4, 4, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match="images of shape"):
        grid_of(torch.zeros(shape), 2)


def test_a_sample_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="expected a function"):
        ImageGrid(torch.zeros(3))
