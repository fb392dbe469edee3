"""AdamW's parameter groups and the learning-rate schedule."""

import math

import torch
from torch import nn

from stretchysnake.train.run import OptimConfig

NO_DECAY = ("A_log", "A_b_log", "D", "D_b", "cls_token", "pos_embed", "temporal_pos_embedding")
"""Never decayed, beside every 1-D tensor: Mamba marks A_log and D so; decay would pull every A to -1."""


def parameter_groups(
    model: nn.Module, weight_decay: float, *, layer_decay: float = 1.0
) -> list[dict]:
    """Groups of decayed matrices and kernels, and of the rest (biases, norms, A_log, D, embeddings).

    With layer_decay below 1 there are two for each depth, and `lr_scale` is layer_decay^(depths above): embeddings
    are depth 0, block i is i + 1, the final norm and the head are the top (BEiT; VideoMamba's fine-tuning).
    """
    num_depths = len(model.layers) + 2 if layer_decay < 1 else 1
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
            exempt = parameter.dim() <= 1 or name.rsplit(".", 1)[-1] in NO_DECAY
            depth = _depth(name, num_depths) if layer_decay < 1 else 0
            groups[depth, exempt]["params"].append(parameter)
    return [group for group in groups.values() if group["params"] or num_depths == 1]


def _depth(name: str, num_depths: int) -> int:
    if name.startswith("layers."):
        return int(name.split(".")[1]) + 1
    return num_depths - 1 if name.startswith(("head.", "norm_f.")) else 0


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
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
