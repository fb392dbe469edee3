"""The dtype in which the scan and the convolution compute, whatever the dtypes of their inputs."""

import torch
from torch import Tensor


def state_dtype(*tensors: Tensor | None) -> torch.dtype:
    """fp64 where any tensor is fp64, else fp32; tensors of any shape, None for an absent one."""
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32
