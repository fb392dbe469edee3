"""A model in training on several ranks: whole on each (DDP) or sliced over them (FSDP2, checkpoints/sharding.py)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.sharding import is_sharded


def averaging(model: nn.Module, device: torch.device, runtime: Runtime) -> nn.Module:
    """The model so that gradients are averaged over the ranks: itself for one process, or when it is sliced."""
    if runtime.world_size == 1 or is_sharded(model):
        return model
    ids = [device.index] if device.type == "cuda" else None
    # running statistics are averaged after a step (batch_norm.py), not rank 0's spread before it
    options = signature(DistributedDataParallel).parameters
    spread = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DistributedDataParallel(model, device_ids=ids, **{spread: False})  # named so since 2.13


def unsynchronised(model: nn.Module) -> AbstractContextManager:
    """Within, backward leaves gradients on this rank (all parts of a batch but the last)."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return _slices_unsynchronised(model) if is_sharded(model) else nullcontext()


@contextmanager
def _slices_unsynchronised(model: nn.Module) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
