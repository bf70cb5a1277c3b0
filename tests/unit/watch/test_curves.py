import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from fitkit import Callback, ConfigError, FitLoop, Phase, TensorLoader, supervised
from fitkit.watch import curves
from fitkit.watch.answers import answers_of
from fitkit.watch.curves import Curves
from tests.unit.watch.event_files import images, tensors


class Keep(Callback):
    """All outputs and targets of the latest validation."""

    phases = frozenset({Phase.VAL})
    needs = frozenset({"outputs"})

    def __init__(self):
        self.num_passes = 0

    def on_pass_begin(self, state):
        self.outputs, self.targets = [], []
        self.num_passes += 1

    def on_batch_end(self, state):
        self.outputs.append(state.outputs.clone())
        self.targets.append(state.targets.clone())


def run(model, targets, loss, tmp_path, *, epochs=2, board=None):
    torch.manual_seed(0)
    data = TensorLoader(torch.randn(50, 4), targets, batch_size=8)
    keep = Keep()
    loop = FitLoop(model, data, data, run_dir=tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=loss, optimizer=optimizer), board or Curves(), keep)
    loop.fit(epochs)
    return torch.cat(keep.outputs), torch.cat(keep.targets), keep


def drawn(monkeypatch):
    """The confusion matrices that were drawn."""
    found = []
    original = curves.confusion_picture
    monkeypatch.setattr(
        curves, "confusion_picture", lambda c, names: found.append(c) or original(c, names)
    )
    return found


def check_curve(table, scores, is_it):
    """Compare a stored curve with scikit-learn at some thresholds."""
    tp, fp, tn, fn, precision, recall = table
    assert table.shape == (6, 101)
    for index in (0, 10, 37, 50, 80):
        said = scores >= index / 100 - 1e-7
        assert (tp[index], fp[index]) == ((said & is_it).sum(), (said & ~is_it).sum())
        assert (fn[index], tn[index]) == ((~said & is_it).sum(), (~said & ~is_it).sum())
        if said.any():
            assert precision[index] == pytest.approx(precision_score(is_it, said))
        assert recall[index] == pytest.approx(recall_score(is_it, said))


@pytest.mark.parametrize("form", ["indices", "column", "one-hot", "probabilities"])
def test_several_classes_are_counted_as_scikit_learn_counts(tmp_path, monkeypatch, form):
    matrices = drawn(monkeypatch)
    labels = torch.randint(3, (50,), generator=torch.Generator().manual_seed(1))
    model, targets, loss = torch.nn.Linear(4, 3), labels, torch.nn.CrossEntropyLoss()
    if form == "column":
        targets = labels[:, None]
        loss = ColumnLoss()
    if form in ("one-hot", "probabilities"):
        targets = torch.nn.functional.one_hot(labels, 3).float()
    if form == "probabilities":
        model, loss = torch.nn.Sequential(model, torch.nn.Softmax(1)), torch.nn.MSELoss()
    outputs, _, keep = run(model, targets, loss, tmp_path)
    assert keep.num_passes == 2  # no pass beside those of the loop
    wanted = confusion_matrix(labels, outputs.argmax(1), labels=range(3))
    assert np.array_equal(matrices[-1], wanted)
    found = tensors(tmp_path / "val")
    assert [x for x, _ in found["pr/1"]] == [7, 14]
    scores = outputs if form == "probabilities" else outputs.softmax(1)
    for label in range(3):
        check_curve(found[f"pr/{label}"][-1][1], scores[:, label].numpy(), labels.numpy() == label)
    together = (labels[:, None] == torch.arange(3)).flatten().numpy()
    check_curve(found["pr/all_classes"][-1][1], scores.flatten().numpy(), together)
    assert [x for x, _ in images(tmp_path / "val")["answers/confusion"]] == [7, 14]


class ColumnLoss(torch.nn.Module):
    def forward(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets[:, 0])


def test_two_classes_have_one_curve(tmp_path, monkeypatch):
    matrices = drawn(monkeypatch)
    targets = torch.randint(2, (50, 1), generator=torch.Generator().manual_seed(1)).float()
    outputs, _, _ = run(
        torch.nn.Linear(4, 1),
        targets,
        torch.nn.BCEWithLogitsLoss(),
        tmp_path,
        board=Curves(["no", "yes"]),
    )
    found = tensors(tmp_path / "val")
    assert list(found) == ["pr/yes"]
    is_it = targets.flatten().numpy() == 1
    check_curve(found["pr/yes"][-1][1], outputs.sigmoid().flatten().numpy(), is_it)
    assert np.array_equal(matrices[-1], confusion_matrix(is_it, outputs.flatten() > 0))


def test_labels_outside_of_the_range_do_not_count(tmp_path, monkeypatch):
    matrices = drawn(monkeypatch)
    labels = torch.randint(3, (50,), generator=torch.Generator().manual_seed(1))
    labels[::5] = -100
    run(torch.nn.Linear(4, 3), labels, torch.nn.CrossEntropyLoss(), tmp_path)
    assert matrices[-1].sum() == 40


@pytest.mark.parametrize("width", [1, 3])
def test_numbers_to_come_near_to_are_no_classes(tmp_path, width):
    targets = torch.randn(50, width, generator=torch.Generator().manual_seed(1))
    run(torch.nn.Linear(4, width), targets, torch.nn.MSELoss(), tmp_path)
    assert not (tmp_path / "val").exists()


def test_too_many_names_are_refused(tmp_path):
    labels = torch.randint(3, (50,))
    with pytest.raises(ConfigError, match="got 2 names of classes, the model has 3"):
        run(
            torch.nn.Linear(4, 3),
            labels,
            torch.nn.CrossEntropyLoss(),
            tmp_path,
            board=Curves(["a", "b"]),
        )


@pytest.mark.parametrize("classes", ["cat", [], ["one"], 3])
def test_names_that_are_no_list_are_refused(classes):
    with pytest.raises(ConfigError, match="expected a list of at least two names"):
        Curves(classes)


@pytest.mark.parametrize("num", [2, 10, 21, 60])
def test_matrices_of_any_size_are_drawn(num):
    counts = np.arange(num * num).reshape(num, num)
    png, size = curves.confusion_picture(counts, [f"class {i}" for i in range(num)])
    assert png.startswith(b"\x89PNG")
    assert max(size) < 1200


def counts_of(outputs, targets, *, batch_size):
    """What `Curves` reads after a pass."""
    batches = [
        answers_of(*pair)
        for pair in zip(outputs.split(batch_size), targets.split(batch_size), strict=True)
    ]
    counts = curves._Counts.of(batches[0])
    for batch in batches:
        counts.add(batch)
    return counts.read()


def test_logits_are_told_from_probabilities_once_per_pass():
    outputs = torch.tensor([[-1.0], [2.0], [3.0], [-2.0], [0.3]])
    targets = (outputs > 0).float()
    _, confusion, _ = counts_of(outputs, targets, batch_size=4)
    assert confusion.tolist() == [[2, 0], [0, 3]]
    _, alone, _ = counts_of(outputs[4:], targets[4:], batch_size=4)  # may as well be 30 %
    assert alone.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("num", [3, 1000])
def test_rounded_probabilities_are_probabilities(dtype, num):
    torch.manual_seed(0)
    shares = torch.softmax(3 * torch.randn(256, num), 1).to(dtype)
    labels = torch.randint(num, (256,))
    assert answers_of(shares, labels).shares
    assert not answers_of(shares * 1.05, labels).shares


def test_outputs_that_are_not_finite_are_left_out_and_counted(tmp_path, monkeypatch):
    matrices = drawn(monkeypatch)
    shares = torch.softmax(torch.randn(6, 3), 1)
    shares[1], shares[4, 0] = torch.nan, torch.inf
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    answers = answers_of(shares, labels)
    assert answers.shares  # the rows that are left are probabilities
    num_left_out, confusion, _ = counts_of(shares, labels, batch_size=4)
    assert (num_left_out, confusion.sum()) == (2, 4)
    model = torch.nn.Linear(4, 3)
    torch.nn.init.constant_(model.bias, torch.nan)
    with pytest.warns(UserWarning, match="left out 50 samples") as told:
        run(model, torch.arange(50) % 3, torch.nn.CrossEntropyLoss(), tmp_path)
    assert len(told) == 1
    assert matrices[-1].sum() == 0


@pytest.mark.parametrize(("num", "size"), [(20, 2 * (400 + 20 * 202)), (100, 20404), (30000, 404)])
def test_many_classes_do_not_fill_the_memory(num, size):
    answers = answers_of(torch.randn(2, num), torch.tensor([1, 2]))
    counts = curves._Counts.of(answers)
    assert counts.confusion.numel() + counts.scores.numel() == size
    counts.add(answers)
    _, confusion, scores = counts.read()
    assert (confusion is None) == (num > 100)
    assert scores.sum((0, 2)).tolist() == [2 * num - 2, 2]


@pytest.mark.parametrize("name", ["x" * 5000, "a\nb\0", ""])
def test_any_name_of_a_class_can_be_drawn(name):
    _, (height, width, _) = curves.confusion_picture(np.eye(2, dtype=np.int64), [name, "b"])
    assert max(height, width) < 600
