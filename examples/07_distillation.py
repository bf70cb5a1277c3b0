"""Adds a second model and a second loss: a student learns from labels and a teacher's outputs.

A turn fills LOSS in training; validation keeps the plain loss (Hinton et al. 2015,
arXiv:1503.02531).
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from fitkit import Callback, Event, FitLoop, Phase, TensorLoader, Turn, supervised

torch.manual_seed(0)


class Distill(Callback):
    """Fill LOSS: that of the labels, and the distance to the softened outputs of the teacher."""

    def __init__(self, teacher, temperature=3.0, share=0.7):
        self.teacher, self.temperature, self.share = teacher.eval(), temperature, share

    def on_loss(self, state):
        """Ask the teacher, and publish both losses beside their sum."""
        with torch.no_grad():
            taught = self.teacher(state.inputs)
        soft = [log_softmax(o / self.temperature, dim=1) for o in (state.outputs, taught)]
        distance = kl_div(*soft, reduction="batchmean", log_target=True)
        labels = cross_entropy(state.outputs, state.targets)
        state.loss = self.share * self.temperature**2 * distance + (1 - self.share) * labels
        state.losses |= {"distance": distance, "labels": labels}


def loop_of(width):
    linear = torch.nn.Linear
    model = torch.nn.Sequential(linear(64, width), torch.nn.ReLU(), linear(width, 10))
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    return FitLoop(model, train, val).attach(supervised(loss=cross_entropy, optimizer=adam))


x, y = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
x, held_out = x.float() / 16, torch.arange(len(x)) % 5 == 4
train = TensorLoader(x[~held_out], y[~held_out], shuffle=True)
val = TensorLoader(x[held_out], y[held_out])

teaching, loop = loop_of(width=256), loop_of(width=16)
loop.attach(Turn("student", [Distill(teaching.model)]))


@loop.on(Event.UPDATE_METRICS, phases=[Phase.VAL])
def log_accuracy(state):
    state.log("accuracy", (state.outputs.argmax(dim=1) == state.targets).float().mean())


if __name__ == "__main__":
    teaching.fit(epochs=5)
    for row in loop.fit(epochs=10).rows[-3:]:
        print(f"loss {row['student_loss']:.3f}, accuracy {row['val_accuracy']:.3f}")
