"""Stages computed again in the backward pass instead of keeping what is inside them."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def run_stage(model: nn.Module, stage: Callable, *inputs):
    """stage(*inputs), computed again in the backward pass where the model's `checkpoint_activations` asks for it."""
    if model.checkpoint_activations and model.training and torch.is_grad_enabled():
        modules = stage.modules() if isinstance(stage, nn.Module) else ()
        norms = [module for module in modules if isinstance(module, BATCH_NORMS)]
        if not norms:
            return checkpoint(stage, *inputs, use_reentrant=False)
        return checkpoint(
            stage,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _StatisticsKept(norms)),
        )
    return stage(*inputs)


class _StatisticsKept:
    """Within it, batch norms write into copies: a batch that is computed again must not count twice."""

    def __init__(self, norms: list[nn.Module]):
        self.norms = norms

    def __enter__(self) -> None:
        self.before = [dict(norm._buffers) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.before, strict=True):
            norm._buffers.update({k: x if x is None else x.clone() for k, x in buffers.items()})

    def __exit__(self, *error) -> None:
        for norm, buffers in zip(self.norms, self.before, strict=True):
            norm._buffers.update(buffers)
