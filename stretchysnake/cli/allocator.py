"""The C library's allocator told to keep freed memory, so that the next step finds its pages already there."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have glibc give no freed block below 32 MiB back to the system; True where it listened.

    By default a large block goes back as soon as it is freed, and the next operation's output, of the same size, is
    new memory whose every page costs a fault: 98,000 of them, a third of the time, in one forward pass of
    VideoMamba-Ti at 8 x 224². The peak stays the same, the process keeps it. The setting is the whole process's: the
    command line makes it, importing the package does not. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 32 << 20),  # the largest glibc takes
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 64 << 20),
    )
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)
