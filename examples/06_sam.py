"""Adds an optimizer of two passes: sharpness-aware minimization, two turns of one batch.

Turn "climb" moves the weights along their gradient, by a step of length rho. Turn "descend" goes
back and updates them with the gradient found up there (Foret et al. 2021, arXiv:2010.01412).
"""

import torch
from sklearn.datasets import load_digits

from fitkit import Callback, Event, FitLoop, Phase, Record, TensorLoader, Turn, supervised

torch.manual_seed(0)


class Climb(Callback):
    """Fill APPLY in the place of the optimizer: weights += rho * gradient / its norm."""

    def __init__(self, model, rho=0.05):
        self.weights, self.rho = list(model.parameters()), rho
        self.steps = [torch.zeros_like(weight) for weight in self.weights]

    def on_apply(self, state):
        """Climb, and remember the step."""
        norm = torch.stack([weight.grad.norm() for weight in self.weights]).norm()
        for weight, step in zip(self.weights, self.steps, strict=True):
            step.copy_(weight.grad * (self.rho / norm))
            weight.add_(step)


class GoBack(Callback):
    """Undo the step before the optimizer updates the weights."""

    def __init__(self, climb):
        self.climb = climb

    def on_grads_ready(self, state):
        """Go back, with the gradients found up there."""
        for weight, step in zip(self.climb.weights, self.climb.steps, strict=True):
            weight.sub_(step)


x, y = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
x, held_out = x.float() / 16, torch.arange(len(x)) % 5 == 4
train = TensorLoader(x[~held_out], y[~held_out], shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loop = FitLoop(model, train, TensorLoader(x[held_out], y[held_out]))
loop.attach(supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer), Record("interpret"))
loop.attach(Turn("climb", [climb := Climb(model)]), Turn("descend", [GoBack(climb)]))


@loop.on(Event.UPDATE_METRICS, phases=[Phase.VAL])
def log_accuracy(state):
    state.log("accuracy", (state.outputs.argmax(dim=1) == state.targets).float().mean())


if __name__ == "__main__":
    for row in loop.fit(epochs=5).rows:
        print(f"loss {row['descend_loss']:.3f}, accuracy {row['val_accuracy']:.3f}")
