"""A model on its device and in its precision: `placed` once, then every forward pass inside `inference`.

A precision is applied in this file and nowhere else in eval/ and search/; a new one is a name in placement.py and a
branch here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from stretchysnake.eval.features.narrow_products import forget, narrow_products
from stretchysnake.eval.features.placement import Placement
from stretchysnake.models.backbone import Backbone
from stretchysnake.ops.narrow_products.int8 import why_no_int8
from stretchysnake.ranks import SINGLE, Runtime

_AUTOCAST = {"bf16": torch.bfloat16}


def placed(model: Backbone, placement: Placement, *, runtime: Runtime = SINGLE) -> Backbone:
    """The model itself, moved to the device of this rank, with the precision that `inference` computes in.

    Its weights stay fp32. RuntimeError for a device that is not there, ValueError for one without the precision.
    """
    device = runtime.device(placement.device)
    if placement.precision == "int8" and (why := _why_no_int8(device)):
        raise ValueError(f"precision (int8) is not to be had on {device}: {why}")
    model.to(device)
    model.precision = placement.precision
    forget(model)
    return model


def _why_no_int8(device: torch.device) -> str | None:
    return (
        why_no_int8()
        if device.type == "cpu"
        else "it is for a CPU; give --device cpu, or another precision"
    )


def precision_of(model: Backbone) -> str:
    """What `placed` set; a model that was never placed computes in fp32."""
    return getattr(model, "precision", "fp32")


def device_of(model: Backbone) -> torch.device:
    """Where the weights are, and clips must go."""
    return next(model.parameters()).device


def device_name(device: torch.device) -> str:
    """What the maker calls a GPU; "" for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


@contextmanager
def inference(model: Backbone) -> Iterator[torch.device]:
    """Within, forward passes of the model are in its precision and keep nothing for a backward; gives its device."""
    device, precision = device_of(model), precision_of(model)
    with torch.inference_mode(), ExitStack() as contexts:
        if precision in _AUTOCAST:
            contexts.enter_context(torch.autocast(device.type, _AUTOCAST[precision]))
        if device.type == "cpu" and precision != "fp32":
            contexts.enter_context(narrow_products(model, precision))
        yield device
