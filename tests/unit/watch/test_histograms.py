import keras
import numpy as np
import pytest
import torch

from fitkit import FitLoop, Record, State, TensorLoader, gan, supervised
from fitkit.watch import spread
from fitkit.watch.histograms import Histograms
from fitkit.watch.spread import look_at, norms_of
from fitkit.watch.tensorboard import TensorBoard
from tests.unit.watch.event_files import event_files, scalars, tensors
from tests.unit.watch.helpers import make_loop


def as_rows(table):
    return table[:, 0], table[:, 1], table[:, 2]


def test_a_histogram_is_that_of_numpy():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    norm, low, high, *counts = look_at([values])[0].tolist()
    assert norm == pytest.approx(values.norm().item())
    assert (low, high) == (values.min().item(), values.max().item())
    expected, _ = np.histogram(values.numpy(), 30)
    assert np.abs(np.array(counts) - expected).sum() <= 4  # float32 at the edges
    assert sum(counts) == 1000


def test_what_is_not_finite_is_left_out_of_the_bars():
    values = torch.tensor([1.0, 2.0, torch.nan, torch.inf, -torch.inf])
    _, low, high, *counts = look_at([values])[0].tolist()
    assert (low, high, sum(counts)) == (1.0, 2.0, 2)
    assert not look_at([torch.tensor([torch.nan])])[0, 1].isfinite()


def test_values_that_are_all_the_same_have_a_bar_in_the_middle():
    _, low, high, *counts = look_at([torch.full((7,), 3.0)])[0].tolist()
    assert low < 3 < high
    assert counts[15] == 7


def test_many_values_are_counted_to_the_last():
    values = torch.zeros(17_000_000, dtype=torch.bfloat16)  # 2**24 is where float32 stops counting
    values[0] = 3.0
    norm, low, high, *counts = look_at([values])[0].tolist()
    assert (norm, low, high) == (3.0, 0.0, 3.0)
    assert (counts[0], counts[29]) == (17_000_000, 1)  # 16,999,999, as float32 has it


def test_values_in_chunks_give_what_they_give_at_once(monkeypatch):
    values = torch.randn(3, 700, generator=torch.Generator().manual_seed(1))
    values[1, 5], values[2, 6] = torch.nan, torch.inf
    whole = look_at([values])[0]
    monkeypatch.setattr(spread, "_CHUNK", 256)
    chunks = look_at([values])[0]
    assert torch.equal(chunks[1:], whole[1:])
    assert whole[3:].sum() == 2098
    assert torch.isclose(norms_of([values.nan_to_num(0, 0)])[0], values.nan_to_num(0, 0).norm())


def looks_alone(tensors):
    return torch.cat([look_at([each]) for each in tensors])


@pytest.mark.parametrize("chunk", [1 << 20, 100, 7])
def test_tensors_that_are_looked_at_together_are_told_apart(monkeypatch, chunk):
    generator = torch.Generator().manual_seed(1)
    sizes = ((9, 9), (), (700,), (3,), (1, 1), (250, 2))
    tensors = [torch.randn(size, generator=generator) * 10**k for k, size in enumerate(sizes)]
    tensors[0][1, 1], tensors[2][5], tensors[3][:] = torch.nan, torch.inf, torch.nan
    tensors += [torch.full((7,), -3.0, dtype=torch.float64), tensors[0].T.bfloat16()]
    alone, norms = looks_alone(tensors), torch.cat([norms_of([each]) for each in tensors])
    monkeypatch.setattr(spread, "_CHUNK", chunk)
    together = look_at(tensors)
    assert torch.equal(together[:, 1:].nan_to_num(-1), alone[:, 1:].nan_to_num(-1))
    for found in (together[:, 0], norms_of(tensors)):
        assert torch.allclose(found, norms, equal_nan=True)
    assert together[:, 3:].sum(1).tolist() == [80, 1, 699, 0, 1, 500, 7, 80]


def test_double_weights_have_norms_and_bars(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1).double()
    data = TensorLoader(torch.randn(8, 3).double(), torch.randn(8, 1).double(), batch_size=4)
    loop = FitLoop(model, data, run_dir=tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Histograms(every=1))
    loop.fit(1)
    found = scalars(tmp_path / "train")["weight_norm/weight"]
    assert found[-1][1] == pytest.approx(model.weight.detach().norm().item())


def test_a_weight_that_begins_as_zeros_has_no_ratio_at_first(tmp_path):
    loop = make_loop(Histograms(every=1), run_dir=tmp_path)
    torch.nn.init.zeros_(loop.model.bias)
    loop.fit(1)
    found = scalars(tmp_path / "train")
    assert [x for x, _ in found["update_ratio/weight"]] == [1, 2, 3, 4, 5]
    assert [x for x, _ in found["update_ratio/bias"]] == [2, 3, 4, 5]
    assert max(v for _, v in found["update_ratio/bias"]) < 10


def test_sparse_gradients_are_looked_at(tmp_path):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(10, 1, sparse=True)
    model = torch.nn.Sequential(embedding, torch.nn.Flatten(), torch.nn.Linear(2, 1))
    loader = TensorLoader(torch.tensor([[1, 1], [1, 4]]), torch.ones(2, 1), batch_size=2)
    loop = FitLoop(model, loader, run_dir=tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Histograms(every=1))
    loop.fit(1)
    gradient = embedding.weight.grad.to_dense()
    [(_, norm)] = scalars(tmp_path / "train")["gradient_norm/0.weight"]
    assert norm == pytest.approx(gradient.norm().item())
    [(_, bars)] = tensors(tmp_path / "train")["gradients/0.weight"]
    assert bars[:, 2].sum() == 2  # rows 1 and 4


def hand_rows(every, updates):
    """{update: (weights before, gradients, weights after)} of what `make_loop` trains."""
    model = make_loop().model
    loader = make_loop().train_loader
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rows, k = {}, 0
    while k < updates:
        for x, y in loader:
            before = {n: p.detach().clone() for n, p in model.named_parameters()}
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            if k % every == 0:
                gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
                after = {n: p.detach().clone() for n, p in model.named_parameters()}
                rows[k + 1] = (before, gradients, after)
            k += 1
    return rows


@pytest.mark.parametrize("recorded", [False, True])
def test_norms_ratios_and_bars_are_those_of_the_hand_loop(tmp_path, recorded):
    record = [Record("interpret")] if recorded else []
    loop = make_loop(TensorBoard(), Histograms(every=4), *record, run_dir=tmp_path)
    loop.fit(3)
    points, histograms = scalars(tmp_path / "train"), tensors(tmp_path / "train")
    rows = hand_rows(4, 15)
    assert list(rows) == [1, 5, 9, 13]
    for name in ("weight", "bias"):
        for kind, index in (("weight_norm", 2), ("gradient_norm", 1)):
            found = points[f"{kind}/{name}"]
            assert [x for x, _ in found] == list(rows)
            wanted = [row[index][name].norm().item() for row in rows.values()]
            assert [v for _, v in found] == pytest.approx(wanted, rel=1e-5)
        ratios = [
            ((after[name] - before[name]).norm() / before[name].norm()).item()
            for before, _, after in rows.values()
        ]
        assert [v for _, v in points[f"update_ratio/{name}"]] == pytest.approx(ratios, rel=1e-3)
    for kind, index in (("weights", 2), ("gradients", 1)):
        for (x, table), row in zip(histograms[f"{kind}/weight"], rows.values(), strict=True):
            left, right, counts = as_rows(table)
            assert counts.sum() == 3, x
            assert left[0] == pytest.approx(row[index]["weight"].min().item(), abs=1e-5)
            assert right[-1] == pytest.approx(row[index]["weight"].max().item(), abs=1e-5)
    if recorded:
        assert sum(r.program.num_replays for r in record[0].recordings.values() if r.program) > 3


def test_without_eager_steps_a_recorded_run_has_no_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr(State, "request_eager", lambda self: None)
    loop = make_loop(Histograms(every=4), Record("interpret"), run_dir=tmp_path)
    loop.fit(3)
    assert len(scalars(tmp_path / "train").get("gradient_norm/weight", [])) < 4


def test_keras_weights_have_their_names(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="first")(inputs))
    loader = TensorLoader(torch.randn(20, 3), torch.randn(20, 2), batch_size=4)
    loop = FitLoop(model, loader, run_dir=tmp_path)
    loop.attach(supervised(loss="mse", optimizer="adam"), Histograms(every=2))
    loop.fit(1)
    found = tensors(tmp_path / "train")
    assert [x for x, _ in found["gradients/first/kernel"]] == [1, 3, 5]
    assert found["weights/first/kernel"][0][1][:, 2].sum() == 6
    assert found["gradients/first/kernel"][0][1][:, 2].sum() == 6


def test_both_networks_of_a_gan_are_looked_at(tmp_path):
    generator, discriminator = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)
    loop = FitLoop(
        torch.nn.ModuleList([generator, discriminator]),
        TensorLoader(torch.randn(64, 4)),
        run_dir=tmp_path,
        callbacks=gan(
            generator=generator,
            discriminator=discriminator,
            generator_optimizer=torch.optim.SGD(generator.parameters(), lr=0.1),
            discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
            loss=torch.nn.BCEWithLogitsLoss(),
            latent_dim=2,
        ),
    )
    loop.attach(TensorBoard(), Histograms(every=1))
    loop.fit(1)
    found = scalars(tmp_path / "train")
    assert [len(found[f"gradient_norm/{k}.weight"]) for k in (0, 1)] == [2, 2]
    assert [len(found[f"step/lr_{turn}"]) for turn in "dg"] == [2, 2]


def test_all_callbacks_share_a_writer_whose_file_is_closed(tmp_path):
    loop = make_loop(Histograms(every=4), TensorBoard(), run_dir=tmp_path)
    loop.fit(2)
    assert len(event_files(tmp_path / "train")) == 1
    assert all(board.files is None for board in loop.callbacks if hasattr(board, "files"))


def test_they_follow_the_tensorboard_of_the_loop(tmp_path):
    other = Histograms(every=4, log_dir=tmp_path / "b")
    loop = make_loop(Histograms(every=4), other, TensorBoard(tmp_path / "a", x="samples"))
    loop.fit(1)
    assert [x for x, _ in scalars(tmp_path / "a" / "train")["weight_norm/bias"]] == [4, 20]
    assert [x for x, _ in scalars(tmp_path / "b" / "train")["weight_norm/bias"]] == [1, 5]
    assert not loop.run_dir.exists()
