"""The networks of the cases. Keras layers unless the name says torch; none draws random numbers."""

import keras
import torch
from torch import Tensor, nn

layers = keras.layers


def mlp(hidden: int = 2, width: int = 64) -> keras.Model:
    """The MLP of the guide: 784 inputs, `hidden` layers of `width`, 10 logits."""
    inputs = x = keras.Input((784,))
    for _ in range(hidden):
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def torch_mlp() -> nn.Sequential:
    """The same MLP of torch modules."""
    hidden = [nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def cnn() -> keras.Model:
    """Three blocks of convolution, batch normalization and pooling on 32x32x3."""
    parts = [keras.Input((32, 32, 3))]
    for width in (16, 32, 64):
        parts += [layers.Conv2D(width, 3, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
    return keras.Sequential([*parts, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def resnet50() -> keras.Model:
    """ResNet-50 as `keras.applications` has it, without weights, with logits."""
    return keras.applications.ResNet50(weights=None, classes=1000, classifier_activation=None)


def embedding_bag(vocabulary: int = 10_000) -> keras.Model:
    """The mean of 20 embeddings of width 32, then one hidden layer."""
    inputs = keras.Input((20,), dtype="int64")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(vocabulary, 32)(inputs))
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(64, activation="relu")(x)))


class Positions(layers.Layer):
    """Add a learned vector per position."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the table (length, width)."""
        self.table = self.add_weight(shape=tuple(shape[1:]), initializer="random_normal")

    def call(self, x: Tensor) -> Tensor:
        """Add it to (batch, length, width)."""
        return x + self.table


def gpt(vocabulary: int, length: int, depth: int, width: int, heads: int) -> keras.Model:
    """A decoder in the shape of GPT-2 (norm first, GELU, causal attention), without dropout."""
    inputs = keras.Input((length,), dtype="int64")
    x = Positions()(layers.Embedding(vocabulary, width)(inputs))
    for _ in range(depth):
        normed = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(heads, width // heads)
        x = x + attention(normed, normed, use_causal_mask=True)
        hidden = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(hidden)
    return keras.Model(inputs, layers.Dense(vocabulary)(layers.LayerNormalization()(x)))


class TorchBlock(nn.Module):
    """One layer of `TorchGPT`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class TorchGPT(nn.Module):
    """The same shape as `gpt`, of torch modules."""

    def __init__(self, vocabulary: int, length: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[TorchBlock(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, length) to logits (batch, length, vocabulary)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.places(places))))
