"""Adds no Keras at all: a torch module, a torch optimizer and a DataLoader in the same loop."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from fitkit import Event, FitLoop, Phase, supervised

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images = torch.from_numpy(images / 16).float().reshape(-1, 1, 8, 8)
digits = TensorDataset(images, torch.from_numpy(labels))
train_set, val_set = random_split(digits, [1497, 300])
train = DataLoader(train_set, batch_size=32, shuffle=True)
val = DataLoader(val_set, batch_size=256)

model = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.2),  # on in training, off in validation: TrainMode sees to it
    nn.Linear(16 * 4 * 4, 10),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loop = FitLoop(model, train, val)
loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer))


@loop.on(Event.UPDATE_METRICS, phases=[Phase.TRAIN, Phase.VAL])
def log_accuracy(state):
    hits = state.outputs.argmax(dim=1) == state.targets
    state.log("accuracy", hits.float().mean())


for row in loop.fit(epochs=5).rows:
    print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, val_accuracy {row['val_accuracy']:.3f}")

predicted = loop.predict(val).argmax(axis=1)
wrong = sum(int(p) != int(label) for p, (_, label) in zip(predicted, val_set, strict=True))
print(f"{wrong} of {len(val_set)} digits misread; keras loaded: {'keras' in sys.modules}")
