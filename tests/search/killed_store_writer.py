"""Writes an index into a store and dies where it is told to.

python killed_store_writer.py URI FOLDER merge|first-rows|delete
python killed_store_writer.py FOLDER ROUNDS SEED      many times, by SIGKILL at any moment, beside another writer
"""

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

from hand_made_index import hand_made, numbered

from stretchysnake.search.index import read_index
from stretchysnake.search.stores import lance_store
from stretchysnake.search.stores.lance_tables import connect, held_indexes


def dies_at(uri: str, folder: str, point: str) -> None:
    batches = lance_store._batches

    def killed_batches(*arguments):
        for number, batch in enumerate(batches(*arguments)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    if point == "delete":
        lance_store._quoted = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    else:
        lance_store._ROWS_AT_ONCE, lance_store._batches = 3, killed_batches
    lance_store.sync(uri, read_index(folder))


def import_before_forking() -> None:
    """LanceDB takes two seconds to import; it makes its threads anew in a fork, and says that this is an experiment."""
    warnings.simplefilter("ignore")
    import lancedb  # noqa: F401


def in_a_child(work, kill_after: float | None = None):
    """What work returns, done in a process of its own; None where it was killed that long after it was ready."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        gc.freeze()  # as in killed_at.py
        try:
            os.write(writing, b"r")
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading, kill_after


def answer(running):
    child, reading, kill_after = running
    with os.fdopen(reading, "rb") as file:
        assert file.read(1) == b"r"
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def stored(uri: str) -> dict[str, list]:
    """Folder name -> (path, size) of every row in the store, which tells its content."""
    return {
        Path(held.name).name: list(
            zip(*lance_store._columns(held.table, ["path", "size"]), strict=True)
        )
        for held in held_indexes(uri, connect(uri))
    }


def killed_often(folder: Path, rounds: int, seed: int) -> None:
    """Prints how many writers were killed in their work; AssertionError for a row lost, double or foreign."""
    import_before_forking()
    chance, uri, killed = random.Random(seed), str(folder / "store"), 0
    before = {name: {} for name in "abc"}
    for round_ in range(rounds + 1):
        last = round_ == rounds
        running, wanted = {}, {}
        for name in "abc" if round_ in (0, rounds) else chance.sample("abc", 2):
            first = chance.randrange(200)
            wanted[name] = {
                **numbered(first, first + 400),
                **numbered(first, first + chance.randrange(400), changed=1000 * round_ + 1000),
            }
            hand_made(folder / name, wanted[name])
            sync = lambda name=name: lance_store.sync(uri, read_index(folder / name))  # noqa: E731
            late = None if last or (round_ and chance.random() < 0.3) else chance.uniform(0, 0.15)
            running[name] = in_a_child(sync, late)
        done = {name: answer(child) for name, child in running.items()}
        killed += sum(said is None for said in done.values())
        found = answer(in_a_child(lambda: stored(uri)))
        for name, old in before.items():
            rows = [tuple(row) for row in found.get(name, [])]
            new = wanted.get(name, old)
            assert len({path for path, _ in rows}) == len(rows), f"{name}: a row is double"
            if done.get(name) is not None or name not in wanted:
                assert dict(rows) == new, f"{name}: not what was written"
            assert set(rows) <= old.items() | new.items(), f"{name}: foreign rows"
            assert old.keys() & new.keys() <= dict(rows).keys(), f"{name}: a row is lost"
            before[name] = dict(rows)
    print(killed)


if __name__ == "__main__":
    if sys.argv[2].isdigit():
        killed_often(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        dies_at(*sys.argv[1:])
