"""Pass: spell out torch's fused optimizer kernels, so that a compiler can fuse them itself.

The fused kernels are opaque to a compiler and have no shape rule for functional tracing. Spelled
out, their arithmetic joins the loop that makes the gradients. Each function below computes what the
kernel of the same name computes, per parameter, up to rounding; scalars that depend on the step
count or the learning rate stay 0-d float64, as inside the kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Tensors = Sequence[Tensor]


def spelled_out(module: fx.GraphModule) -> Callable[..., Any]:
    """Return a function that runs a graph with fused optimizer kernels spelled out."""
    return _SpellOut(module).run


class _SpellOut(fx.Interpreter):
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A gradient scaler's kernels skip steps with infinities; those stay as they are.
        scaled = kwargs.get("grad_scale") is not None or kwargs.get("found_inf") is not None
        target = target if scaled else _SPELLED.get(target, target)
        return super().call_function(target, args, kwargs)


def _adam(*lists: Tensors, adamw: bool = False, **options: Any) -> None:
    parameters, grads, means, squares, max_squares, steps = lists
    beta1, beta2, decay = options["beta1"], options["beta2"], options["weight_decay"]
    for i, parameter in enumerate(parameters):
        grad = -grads[i] if options["maximize"] else grads[i]
        if adamw:
            parameter.mul_(_lr(options) * -decay + 1)
        elif decay:
            grad = grad + parameter * decay
        means[i].copy_(means[i] + (grad - means[i]) * (1 - beta1))
        squares[i].copy_(squares[i] * beta2 + grad * grad * (1 - beta2))
        square = squares[i]
        if options["amsgrad"]:
            max_squares[i].copy_(torch.maximum(max_squares[i], square))
            square = max_squares[i]
        count = steps[i].double()
        root = (1 - torch.pow(beta2, count)).sqrt()
        rate = _lr(options) / (1 - torch.pow(beta1, count))
        parameter.sub_(means[i] / (square.sqrt() / root + options["eps"]) * rate)


def _adamw(*lists: Tensors, **options: Any) -> None:
    _adam(*lists, adamw=True, **options)


def _sgd(parameters: Tensors, grads: Tensors, buffers: Tensors, **options: Any) -> None:
    momentum = options["momentum"]
    for i, parameter in enumerate(parameters):
        grad = -grads[i] if options["maximize"] else grads[i]
        grad = grad + parameter * options["weight_decay"] if options["weight_decay"] else grad
        if momentum:
            first = options["is_first_step"]
            new = grad if first else buffers[i] * momentum + grad * (1 - options["dampening"])
            buffers[i].copy_(new)
            grad = grad + buffers[i] * momentum if options["nesterov"] else buffers[i]
        parameter.sub_(grad * _lr(options))


def _adagrad(
    parameters: Tensors, grads: Tensors, sums: Tensors, steps: Tensors, **options: Any
) -> None:
    for i, parameter in enumerate(parameters):
        grad = -grads[i] if options["maximize"] else grads[i]
        grad = grad + parameter * options["weight_decay"] if options["weight_decay"] else grad
        sums[i].copy_(sums[i] + grad * grad)
        rate = _lr(options) / ((steps[i].double() - 1) * options["lr_decay"] + 1)
        parameter.sub_(grad / (sums[i].sqrt() + options["eps"]) * rate)


def _lr(options: dict[str, Any]) -> Any:
    """Return the learning rate: a number as it is, a 0-d tensor as float64."""
    lr = options["lr"]
    return lr.double() if isinstance(lr, Tensor) else lr


def _spelled() -> dict[Any, Callable[..., None]]:
    ops = torch.ops.aten
    packets: dict[Any, Callable[..., None]] = {
        ops._fused_adam_: _adam,
        ops._fused_adamw_: _adamw,
        ops._fused_sgd_: _sgd,
        ops._fused_adagrad_: _adagrad,
    }
    return {getattr(p, name): f for p, f in packets.items() for name in p.overloads()}


_SPELLED = _spelled()
