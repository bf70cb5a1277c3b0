"""A module of the user's, whose functions a recorded step calls."""

RATE = 1.0


def scaled(x):
    return _inner(x)


def _inner(x):
    return x * RATE
