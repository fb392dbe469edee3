"""AdamW's parameter groups and the learning-rate schedule."""

import math

import torch

from stretchysnake.models.backbone import Backbone
from stretchysnake.train.run import OptimConfig


def parameter_groups(
    model: Backbone, weight_decay: float, *, layer_decay: float = 1.0
) -> list[dict]:
    """Groups of decayed matrices and kernels, and of the rest (every 1-D tensor, and what the model leaves undecayed).

    With layer_decay below 1 there are two for each depth, and `lr_scale` is layer_decay^(depths above): embeddings
    are depth 0, block i is i + 1, the final norm and the head are the top (BEiT; VideoMamba's fine-tuning).
    """
    num_depths = len(model.stages()) + 2 if layer_decay < 1 else 1
    undecayed = model.undecayed()
    groups: dict[tuple[int, bool], dict] = {}
    for depth in range(num_depths):
        for exempt in (False, True):
            groups[depth, exempt] = {
                "params": [],
                "weight_decay": 0.0 if exempt else weight_decay,
                "lr_scale": layer_decay ** (num_depths - 1 - depth),
            }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.dim() <= 1 or name.rsplit(".", 1)[-1] in undecayed
            depth = model.depth_of(name) if layer_decay < 1 else 0
            groups[depth, exempt]["params"].append(parameter)
    return [group for group in groups.values() if group["params"] or num_depths == 1]


def build_optimizer(model: Backbone, config: OptimConfig) -> torch.optim.AdamW:
    groups = parameter_groups(model, config.weight_decay, layer_decay=config.layer_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def lr_at(config: OptimConfig, *, step: int, steps: int) -> float:
    """The learning rate of step 0..steps-1: linear warm-up to lr, then half a cosine towards 0."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
