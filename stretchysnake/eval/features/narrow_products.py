"""The products of a model on a CPU in bf16 or int8, whatever its architecture: those with its own weights.

`placed_model.inference` opens it. The narrow weights are made at the first pass and kept while the model lives; they
are made anew when a weight is written to (but for writes through `.data`, which torch does not count: place again).
"""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stretchysnake.models.backbone import Backbone
from stretchysnake.ops.narrow_products.bf16 import (
    bf16_conv,
    bf16_linear,
    bf16_weight,
    has_bf16_products,
)
from stretchysnake.ops.narrow_products.int8 import int8_linear, int8_weight

logger = logging.getLogger(__name__)
_CONVOLUTIONS = (F.conv2d, F.conv3d)
_kept: WeakKeyDictionary = WeakKeyDictionary()
"""model -> {(precision, name): (what the weight was, its narrow form)}"""
_told: set[str] = set()


def forget(model: Backbone) -> None:
    """Make its narrow weights anew at the next pass."""
    _kept.pop(model, None)


def narrow_bytes(model: Backbone) -> int:
    """Bytes of the narrow weights that its precision keeps beside its own; 0 in fp32 and on a GPU."""
    precision = getattr(model, "precision", "fp32")
    if precision == "fp32" or not next(model.parameters()).is_cpu:
        return 0
    size = 1 if precision == "int8" else 2 if has_bf16_products() else 4
    return size * sum(layer.weight.numel() for _, layer in _layers(model, precision))


@contextmanager
def narrow_products(model: Backbone, precision: str):
    """Within, products of the model's linear layers are in `precision`, "bf16" (inside autocast) or "int8"."""
    if precision == "bf16" and not has_bf16_products():
        _tell_once(
            "this processor has no products of bf16: precision bf16 multiplies rounded numbers in fp32, and is no "
            "faster than precision fp32"
        )
    with _Products(_by_weight(model, precision), precision == "bf16"):
        yield


def _tell_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        logger.warning(text)


class _Products(TorchFunctionMode):
    """Answers F.linear with a weight of the model, and in bf16 its convolutions, by narrow products."""

    def __init__(self, products: dict[int, Callable], bf16: bool):
        super().__init__()
        self.products = products
        self.slow_convolutions = bf16 and not has_bf16_products()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear and len(args) > 1 and (product := self.products.get(id(args[1]))):
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            return product(args[0], bias=bias)
        if self.slow_convolutions and func in _CONVOLUTIONS and len(args) > 2:
            x, weight, *rest = args
            with torch.autocast("cpu", enabled=False):
                return bf16_conv(func, x, bf16_weight(weight), *rest, **kwargs)
        return func(*args, **kwargs)


def _by_weight(model: Backbone, precision: str) -> dict[int, Callable]:
    """The product with each weight of the model's linear layers, by the weight's identity."""
    kept = _kept.setdefault(model, {})
    products = {}
    for name, layer in _layers(model, precision):
        weight = layer.weight
        version = 0 if weight.is_inference() else weight._version  # those cannot be written to
        state = (weight.data_ptr(), version, weight.dtype)
        known, narrow = kept.get((precision, name), (None, None))
        if known != state:
            narrow = bf16_weight(weight) if precision == "bf16" else int8_weight(weight)
            kept[precision, name] = state, narrow
        products[id(weight)] = partial(_bf16 if precision == "bf16" else _int8, weight=narrow)
    return products


def _layers(model: Backbone, precision: str) -> list[tuple[str, nn.Linear]]:
    """The linear layers whose products are narrow, by name."""
    head = getattr(model, "classifier", None)
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and (precision == "bf16" or _pays(layer, name, head))
    ]


def _pays(layer: nn.Linear, name: str, head: str | None) -> bool:
    """Whether int8 takes less time than fp32, rounding the inputs included; a head's answers stay fp32."""
    return layer.in_features >= 64 and 4 * layer.out_features >= layer.in_features and name != head


def _bf16(x: Tensor, *, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return bf16_linear(x, weight, bias)


def _int8(x: Tensor, *, weight, bias: Tensor | None) -> Tensor:
    return int8_linear(x, weight, bias)
