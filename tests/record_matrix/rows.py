"""All rows, in the order of the table."""

from tests.record_matrix import keras_layers, keras_optimizers, keras_parts, torch_parts

ROWS = [
    *keras_optimizers.ROWS,
    *keras_parts.ROWS,
    *keras_layers.ROWS,
    *torch_parts.ROWS,
]
