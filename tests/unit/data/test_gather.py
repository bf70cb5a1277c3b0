import torch

from fitkit.data import Gather

X = torch.arange(12.0).reshape(6, 2)
Y = torch.arange(6)


def test_take_selects_rows_in_the_structure_of_the_arrays():
    gather = Gather({"x": X, "more": (Y, None)}, torch.tensor([4, 0, 4]))
    batch = gather.take()
    assert batch["x"].tolist() == [[8, 9], [0, 1], [8, 9]]
    assert batch["more"][0].tolist() == [4, 0, 4]
    assert batch["more"][1] is None
    assert (gather.batch_size, gather.device) == (3, torch.device("cpu"))


def test_nothing_is_selected_before_it_is_taken():
    array = Y.clone()
    gather = Gather(array, torch.tensor([1]))
    array[1] = 50
    assert gather.take().tolist() == [50]
