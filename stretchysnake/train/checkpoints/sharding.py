"""Parameters, gradients and moments shared out over the ranks (FSDP2), and their way into a checkpoint and back.

Each rank holds a slice of every tensor; a block's weights are together only while the block computes. Slices are
written by all ranks through torch.distributed.checkpoint, as safetensors: its own format would be pickles.
What is imported inside functions costs a second, which a single process need not spend.
"""

import math
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stretchysnake.models.backbone import Backbone


def shard(model: Backbone, device: torch.device) -> None:
    """Share the parameters of each block of `model.stages()`, and of the rest, out over all ranks, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Blocks return a transposed view; FSDP2 warns of in-place operations on it, of which there are none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model.stages():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are shared out over the ranks."""
    return any(_is_slice(parameter) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """The whole of a shared-out tensor, on every rank, if all ranks ask for it; another tensor is passed through."""
    return tensor.full_tensor() if _is_slice(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's slice of a shared-out tensor; another tensor is passed through."""
    return tensor.to_local() if _is_slice(tensor) else tensor


def shared_out_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A copy of a whole tensor, the same on every rank, on the device and in the slices of `pattern`.

    A copy, because what was read from a safetensors file is a mapping of it: should the file be cut short, a bus error.
    """
    tensor = tensor.to(pattern.device, copy=True)
    if not _is_slice(pattern):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, pattern.device_mesh, pattern.placements, src_data_rank=None)


def save_slices(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write the slices of all ranks into `folder`, one safetensors file each; called by all ranks together.

    OSError, on every rank, when one could not write.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        dcp.save(
            tensors,
            storage_writer=dcp.HuggingFaceStorageWriter(path=str(folder), save_distributed=True),
        )
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
        number = getattr(cause, "errno", None)
        raise OSError(number, f"rank {rank}: {getattr(cause, 'strerror', None) or cause}") from None


def stored_slices(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor in the slices of `folder`; ValueError where they leave out or repeat a part."""
    import torch.distributed.checkpoint as dcp

    metadata = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    for name, stored in metadata.items():
        held = sum(math.prod(chunk.sizes) for chunk in stored.chunks)
        if held != math.prod(stored.size):
            raise ValueError(f"{name}: slices hold {held} of {math.prod(stored.size)} numbers")
    return {name: (stored.size, stored.properties.dtype) for name, stored in metadata.items()}


@torch.no_grad()
def load_slices(tensors: dict[str, Tensor], folder: Path) -> None:
    """Fill tensors, whole or shared out over any number of ranks, from the slices of `folder`."""
    import torch.distributed.checkpoint as dcp

    for tensor in tensors.values():
        local(tensor).fill_(float("nan"))  # what no slice covers does not pass for a number
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        reader = dcp.HuggingFaceStorageReader(str(folder))
        dcp.load(tensors, storage_reader=reader, no_dist=True)


def _is_slice(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor
