"""One of two ranks whose limit is four seconds: `patient_ranks.py HOW FOLDER`, run by torchrun.

HOW is "works": rank 0 works alone for twice as long, three times, and the others once; or "dies": it ends instead.
"""

import os
import sys
import time
from pathlib import Path

from stretchysnake.ranks import open_runtime, torchrun_ranks

LIMIT, WORK = 4.0, 8.0


def main(how: str, folder: Path) -> None:
    ranks = torchrun_ranks(os.environ)
    (folder / f"{ranks['rank']}").touch()
    while len(list(folder.iterdir())) < 2:  # starting takes seconds more on a busy machine
        time.sleep(0.01)
    with open_runtime(**ranks, longest_wait=LIMIT) as runtime:
        runtime.gather("")
        if how == "dies":
            if runtime.is_first:
                os._exit(3)
            runtime.from_first(None)
        with runtime.first_goes_first():  # as a frame cache is made
            time.sleep(WORK)
        assert runtime.gather(f"{runtime.rank}") == ["0", "1"]
        if runtime.is_first:  # as a probe is fitted
            time.sleep(WORK)
        assert runtime.from_first(f"{runtime.rank}") == "0"
        if runtime.is_first:  # as a checkpoint is written
            time.sleep(WORK)
        runtime.meet()
        assert runtime.gather(f"{runtime.rank}") == ["0", "1"]
        sys.stdout.write(f"rank {runtime.rank} is there\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
