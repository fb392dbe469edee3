"""What a bad file can do to the process that decodes it, as a function that such a process is given."""

import os
import signal
import time

import numpy as np

from stretchysnake.data.decode_error import DecodeError


def behave(what):
    match what:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(600)
        case "balloon":
            return np.ones(2 * 2**30, np.uint8).sum()
        case "bad":
            raise DecodeError("truncated", "bad", "cut off")
        case "mistake":
            raise ValueError("size (0) must be at least 1")
        case "parent":
            return os.getppid()
    return what
