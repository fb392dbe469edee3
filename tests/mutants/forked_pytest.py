"""pytest again and again from one process that has imported torch already: started by plant.py, one per copy.

Reads lines of JSON, the words for pytest, and answers each with a line, [exit code or null after the limit, output].
The package itself and the tests are imported in the fork, so every run reads them from disk.
"""

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress

TIMEOUT = 900
"""Seconds of one run; a mutant that makes the tests hang is noticed, too."""
ALREADY = ("torch", "torch._dynamo", "torch.distributed.fsdp", "torch.testing", "av")


def run(words: list[str]) -> tuple[int | None, str]:
    """(exit code, output) of pytest in a fork; None as code after TIMEOUT, or when plant.py has ended.

    All that it started ends with it.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = 3
            try:
                import pytest

                code = int(pytest.main(words))
                sys.stdout.flush()
            finally:
                os._exit(code)
        deadline, code, parent = time.monotonic() + TIMEOUT, None, os.getppid()
        while code is None and time.monotonic() < deadline and os.getppid() == parent:
            time.sleep(0.05)
            ended, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if code is None:
            os.waitpid(child, 0)
        output.seek(0)
        return code, output.read()


def main() -> None:
    for name in ALREADY:
        __import__(name)
    for line in sys.stdin:
        answer = run(json.loads(line))
        with suppress(BrokenPipeError):  # plant.py has ended
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
