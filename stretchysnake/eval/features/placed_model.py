"""A model on its device and in its precision: `placed` once, then every forward pass inside `inference`.

A precision is applied in this file and nowhere else in eval/ and search/; a new one is a name in placement.py and a
branch here.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from stretchysnake.eval.features.placement import Placement
from stretchysnake.models.backbone import Backbone
from stretchysnake.ranks import SINGLE, Runtime

_AUTOCAST = {"bf16": torch.bfloat16}


def placed(model: Backbone, placement: Placement, *, runtime: Runtime = SINGLE) -> Backbone:
    """The model itself, moved to the device of this rank, with the precision that `inference` computes in.

    Its weights stay fp32. RuntimeError for a device that is not there.
    """
    model.to(runtime.device(placement.device))
    model.precision = placement.precision
    return model


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
    device, dtype = device_of(model), _AUTOCAST.get(precision_of(model))
    context = nullcontext() if dtype is None else torch.autocast(device.type, dtype)
    with torch.inference_mode(), context:
        yield device
