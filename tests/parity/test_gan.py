"""`gan()` ends with the weights of a user's `train_step`, bit by bit, and recorded as eager."""

import keras
import numpy as np
import pytest
import torch

from fitkit import (
    CallbackOrderError,
    ConfigError,
    DataError,
    FitLoop,
    KerasApply,
    Record,
    TensorLoader,
    Turn,
    gan,
)
from tests.parity import adversaries as adv


def values(variables):
    return [variable.value.detach().numpy().copy() for variable in variables]


def weights(model):
    return values([*model.generator.variables, *model.discriminator.variables])


def slots(model):
    return values([*model.d_optimizer.variables, *model.g_optimizer.variables])


def assert_equal(one, other):
    for left, right in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(slots(one), slots(other), strict=True):
        np.testing.assert_array_equal(left, right)


def by_hand(epochs, loader):
    """Train the class as it is; return it and the mean losses per sample of each epoch."""
    model, rows = adv.user_gan(), []
    for _ in range(epochs):
        model.reset_metrics()
        for (batch,) in loader:
            logs = model.train_step((batch,))
        rows.append({name: float(value) for name, value in logs.items()})
    return model, rows


@pytest.mark.parametrize("num", [64, 72], ids=["even batches", "ragged last batch"])
def test_weights_are_those_of_the_class(num):
    theirs, rows = by_hand(3, adv.images(num))
    ours = adv.user_gan()
    loop = adv.gan_loop(ours, adv.images(num))
    history = loop.fit(epochs=3)
    assert_equal(ours, theirs)
    assert loop.state.turn_updates == {"d": len(rows) * -(-num // 16), "g": 3 * -(-num // 16)}
    if num % 16 == 0:  # the class counts a smaller batch like a full one
        for name in ("d_loss", "g_loss"):
            np.testing.assert_allclose(history[name], [r[name] for r in rows], rtol=1e-6)


@pytest.mark.parametrize("backend", ["interpret"])
def test_recorded_is_eager(backend):
    eager, recorded = adv.user_gan(), adv.user_gan()
    expected = adv.gan_loop(eager, adv.images()).fit(epochs=4)
    record = Record(backend, strict=True)
    loop = adv.gan_loop(recorded, adv.images(), record)
    assert loop.fit(epochs=4).rows == expected.rows
    assert_equal(eager, recorded)
    replays = sum(r.program.num_replays for r in record.recordings.values() if r.program)
    assert replays >= 2 * (20 - 4), loop.record_report()


def test_the_discriminator_gets_no_gradients_in_the_turn_of_the_generator():
    model = adv.user_gan()
    loop = adv.gan_loop(model, adv.images(16))
    loop.fit(epochs=1)
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    assert all(v.value.grad is not None for v in model.generator.trainable_variables)


def test_each_turn_updates_its_own_network():
    """A turn that fires every second batch leaves its network alone in between."""
    model = adv.user_gan()
    entries = list(adv.gan_loop(model, adv.images())._roster.given)
    rarely = [Turn(e.name, e.callbacks, every=2) if is_turn(e, "g") else e for e in entries]
    networks = torch.nn.ModuleList([model.generator, model.discriminator])
    loop = FitLoop(networks, adv.images(), callbacks=rarely)
    before = values(model.generator.variables)
    loop.fit(max_steps=1)
    for left, right in zip(before, values(model.generator.variables), strict=True):
        np.testing.assert_array_equal(left, right)
    loop.fit(max_steps=1)
    assert loop.state.turn_updates == {"d": 2, "g": 1}
    assert any(
        (left != right).any()
        for left, right in zip(before, values(model.generator.variables), strict=True)
    )


def is_turn(entry, name):
    return isinstance(entry, Turn) and entry.name == name


def test_torch_networks_train_and_record():
    def run(*more):
        torch.manual_seed(0)
        generator, discriminator = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)
        loop = FitLoop(
            torch.nn.ModuleList([generator, discriminator]),
            TensorLoader(torch.randn(40, 4), batch_size=8),
            callbacks=gan(
                generator=generator,
                discriminator=discriminator,
                generator_optimizer=torch.optim.SGD(generator.parameters(), lr=0.1),
                discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
                loss=torch.nn.BCEWithLogitsLoss(),
                latent_dim=2,
            ),
        )
        history = loop.attach(*more).fit(epochs=3)
        return history.rows, [p.detach().clone() for p in loop.model.parameters()]

    rows, parameters = run()
    recorded_rows, recorded = run(Record("interpret", strict=True))
    assert recorded_rows == rows
    assert all(map(torch.equal, parameters, recorded))


def test_predict_generates():
    model = adv.user_gan()
    loop = adv.gan_loop(model, adv.images())
    latent = torch.randn(5, adv.LATENT)
    np.testing.assert_array_equal(
        loop.predict(TensorLoader(latent)), keras.ops.convert_to_numpy(model.generator(latent))
    )


def test_a_loop_over_one_network_is_refused():
    model = adv.user_gan()
    stack = list(adv.gan_loop(model, adv.images())._roster.given)
    loop = FitLoop(model.generator, adv.images(), callbacks=stack)
    with pytest.raises(ConfigError, match="parameters that are not of the loop's model"):
        loop.fit(epochs=1)


@pytest.mark.parametrize("run", ["fit", "evaluate"])
def test_a_validation_is_refused_before_the_first_batch(run):
    model = adv.user_gan()
    stack = list(adv.gan_loop(model, adv.images())._roster.given)
    networks = torch.nn.ModuleList([model.generator, model.discriminator])
    loop = FitLoop(networks, adv.images(), adv.images(), callbacks=stack)
    before = weights(model)
    with pytest.raises(CallbackOrderError, match=r"FORWARD in val(.|\n)*leave out val_loader="):
        loop.fit(epochs=1) if run == "fit" else loop.evaluate()
    for left, right in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(left, right)


def test_another_shape_of_images_is_refused():
    loop = adv.gan_loop(adv.user_gan(), TensorLoader(torch.rand(16, 8, 8, 1)))
    with pytest.raises(DataError, match="the generator makes"):
        loop.fit(epochs=1)


def test_rates_are_logged_by_network():
    model = adv.user_gan()
    row = adv.gan_loop(model, adv.images(16)).fit(epochs=1).rows[0]
    assert row["lr_generator"] == pytest.approx(3e-4)
    assert row["lr_discriminator"] == pytest.approx(3e-4)
    assert KerasApply(keras.optimizers.Adam())._rate_name == "lr"
