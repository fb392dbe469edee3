"""Clips of one evaluation shared out among the ranks of torchrun, and what they found put together again, in order."""

import json

import torch
from torch import Tensor

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.ops.out_of_memory import is_out_of_memory
from stretchysnake.ranks import Runtime


def own_share(count: int, batch_size: int, runtime: Runtime) -> list[int]:
    """The clips of this rank: every world_size-th batch, so that batches are those of a single process."""
    step = batch_size * runtime.world_size
    starts = range(batch_size * runtime.rank, count, step)
    return [i for start in starts for i in range(start, min(count, start + batch_size))]


def put_together(
    clips, indices: list[int], values: Tensor, runtime: Runtime
) -> tuple[list[int], Tensor]:
    """(indices, values (n, ...)) of all ranks in the order of the clips; every rank learns all bad files."""
    if runtime.world_size == 1:
        return indices, values
    bad = clips.bad.quarantine
    texts = {i: [error.kind, str(error.path), error.reason] for i, error in bad.items()}
    for text in runtime.gather(json.dumps(texts)):
        for index, (kind, path, reason) in json.loads(text).items():
            bad.setdefault(int(index), DecodeError(kind, path, reason))
    places = torch.cat(runtime.gather_rows(torch.tensor(indices, dtype=torch.int64)))
    order = places.argsort()
    return places[order].tolist(), torch.cat(runtime.gather_rows(values))[order]


def agree_on_failure(error: Exception | None, runtime: Runtime) -> None:
    """Raise on every rank when memory was out on one; other errors end their rank, and so the others."""
    if error is not None and (runtime.world_size == 1 or not is_out_of_memory(error)):
        raise error
    said = [text for text in runtime.gather("" if error is None else f"{error}") if text]
    if said:
        raise MemoryError(said[0])
