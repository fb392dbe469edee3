"""Bytes that can still be allocated: on the CPU the machine's and its container's, on a GPU the device's own."""

import os
from pathlib import Path

import torch

UNKNOWN = 2**63 - 1
"""The system does not tell; the allocation itself will."""


def available_memory(device: torch.device | str = "cpu", *, root: Path = Path("/")) -> int:
    """Bytes that a computation on `device` can still take; `root` is where /proc and /sys are.

    On the CPU the least of what the machine has free (with what it can reclaim) and what each control group above
    this process leaves: a container is killed at its own limit, however much the machine has.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch's allocator holds and does not use is free to it
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([_of_machine(root), *_of_groups(root)])


def _of_machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return UNKNOWN


def _of_groups(root: Path) -> list[int]:
    """What each limit of a control group leaves; none where there is no limit."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.strip().split(":", 2)
        if not controllers:  # version 2
            top, limit, usage, cached = "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):  # version 1
            top, limit, usage, cached = (
                "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_",
            )  # fmt: skip
        else:
            continue
        # Inside a container the path may be the host's, and the container's own group is then the top.
        here = Path(path.lstrip("/"))
        for group in (here, *here.parents):
            folder = root / top / group
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                # Pages of files count as used, and are given back when memory is short.
                used -= sum(
                    int(line.split()[1])
                    for line in _lines(folder / "memory.stat")
                    if line.split()[0] in (f"{cached}inactive_file", f"{cached}active_file")
                )
                left.append(max(0, most - max(0, used)))
    return left


def _number(path: Path) -> int | None:
    """The number a file holds; None where it is absent or says "max"."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
