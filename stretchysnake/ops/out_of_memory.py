"""Which error of an operation says that memory could not be had."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had (GPU, CPU allocator, Python)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text
    )
