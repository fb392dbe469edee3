"""Which error of an operation says that memory could not be had, and how much a GPU has."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had (GPU, CPU allocator, Python)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text
    )


def memory_in_words(device: torch.device) -> str:
    """What a GPU has, e.g. "cuda:0 (NVIDIA H100) has 79.2 GiB, 3.1 of them free"; "" for the CPU."""
    if device.type != "cuda":
        return ""
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))
    return f"{device} ({torch.cuda.get_device_name(device)}) has {total:.1f} GiB, {free:.1f} of them free"
