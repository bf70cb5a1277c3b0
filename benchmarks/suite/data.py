"""The data of the cases: synthetic, in memory, the same bytes for everybody."""

import numpy as np
import torch
from torch import Tensor

Arrays = tuple[Tensor, Tensor]


def digits(num: int) -> Arrays:
    """Digit-like images (num, 784) in [0, 1]; every fourth label is drawn anew."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, num)
    strokes = (rng.random((10, 784)) < 0.2).astype("float32")
    noise = rng.standard_normal((num, 784), dtype="float32")
    images = np.clip(strokes[labels] + 0.25 * noise, 0, 1)
    labels[::4] = rng.integers(0, 10, len(labels[::4]))
    return torch.from_numpy(images), torch.from_numpy(labels)


def images(num: int, size: int = 32, classes: int = 10) -> Arrays:
    """Images (num, size, size, 3) in [0, 1]: a tint per class under noise, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (num,), generator=generator)
    tints = torch.rand(classes, 1, 1, 3, generator=generator)
    noise = torch.rand(num, size, size, 3, generator=generator)
    return 0.7 * noise + 0.3 * tints[labels], labels


def bags(num: int) -> Arrays:
    """Bags of 20 ids below 10,000; the label is that of the first id."""
    ids = torch.randint(0, 10_000, (num, 20), generator=torch.Generator().manual_seed(0))
    return ids, ids[:, 0] % 10


def texts(num: int, vocabulary: int, length: int) -> Arrays:
    """Sequences in which every id follows from the one before; targets are shifted by one."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, vocabulary, (num, 1), generator=generator)
    ids = (first + 7 * torch.arange(length + 1)) % vocabulary
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def pictures(num: int) -> Arrays:
    """Random grey images (num, 28, 28, 1) for the GAN; the labels are not used."""
    x = torch.rand(num, 28, 28, 1, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(num, dtype=torch.int64)
