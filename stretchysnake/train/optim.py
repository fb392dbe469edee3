"""AdamW's parameter groups and the learning-rate schedule."""

import math

import torch
from torch import nn

from stretchysnake.train.run import OptimConfig

NO_DECAY = ("A_log", "A_b_log", "D", "D_b", "cls_token", "pos_embed", "temporal_pos_embedding")
"""Never decayed, beside every 1-D tensor: Mamba marks A_log and D so; decay would pull every A to -1."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: decayed matrices and kernels, and the rest (biases, norms, A_log, D, embeddings)."""
    decayed, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.dim() <= 1 or name.rsplit(".", 1)[-1] in NO_DECAY
            (rest if exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, foreach=True)


def lr_at(config: OptimConfig, *, step: int, steps: int) -> float:
    """The learning rate of step 0..steps-1: linear warm-up to lr, then half a cosine towards 0."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
