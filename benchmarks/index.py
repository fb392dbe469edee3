"""An index of a million rows and of ten: open, add a video, search, memory. Rows are made from a seed, not embedded.

    python benchmarks/index.py FOLDER [--rows 1000000 10000000] [--width 576]

FOLDER holds the indexes (2.4 GB for each, columns apart) and may be kept for the next time. Rows are clustered (1,000
centres), as features are; those beyond 2^20 have the features of earlier ones, whose files are linked, so ten million
are read and compared, but from the memory that 2^20 take: what a disk adds to 23 GB is not in the figures. Each figure
is of a process of its own: seconds on the clock and of the processor (all threads), and the largest resident memory, of
which the rows that are mapped from the file are part. The machine may be shared: processor time hardly feels other
tenants, wall-clock time does. The answers are compared with fp64 products of all rows first, where there are at most
2,000,000.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from stretchysnake import Scale
from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.results.rows import environment
from stretchysnake.search.index import (
    IndexRow,
    IndexSettings,
    VideoFile,
    read_index,
    write_manifest,
)
from stretchysnake.search.journal import Journal
from stretchysnake.search.query import _ranked
from stretchysnake.search.segments.columns import column_bytes
from stretchysnake.search.segments.commit import commit, written_index
from stretchysnake.search.segments.joining import LARGE
from stretchysnake.search.segments.segment import features_file, rows_file
from stretchysnake.search.segments.writing import write_arrays
from stretchysnake.search.stores.ivf import build_lists
from stretchysnake.search.stores.opening import open_collection
from stretchysnake.whole_file import sha256_of

CENTRES, SPREAD, BLOCK = 1000, 0.7, 2**14
MADE_ROWS = 4 * LARGE
"""Features of rows beyond these are those of earlier rows, under other names: ten million would take 23 GB."""
ROW = IndexRow(file=VideoFile(path="/query", size=1, mtime_ns=1, sha256="0" * 64))


def settings_of(width: int) -> IndexSettings:
    return IndexSettings(weights_sha256="made", width=width, scale=Scale(16, 224, 16))


def made_features(first: int, count: int, width: int):
    """Blocks of features (n, width) of the rows from `first` on: each block from a seed of its own."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, width), dtype=np.float32)
    for start in range(first, first + count, BLOCK):
        rng = np.random.default_rng([1, start])
        here = min(BLOCK, first + count - start)
        block = rng.standard_normal((here, width), dtype=np.float32)
        block *= SPREAD
        block += centres[rng.integers(CENTRES, size=here)]
        yield block


def made_columns(first: int, count: int) -> dict[str, np.ndarray]:
    numbers = np.arange(first, first + count)
    name = b"/videos/000000000000.mp4"
    paths = np.tile(np.frombuffer(name, "u1"), (count, 1))
    for place in range(12):
        paths[:, 8 + 11 - place] = ord("0") + numbers // 10**place % 10
    ends = np.arange(1, count + 1, dtype="<i8")
    hashes = np.zeros((count, 32), "u1")
    hashes[:, :8] = numbers.astype("<i8").view("u1").reshape(-1, 8)
    nothing, none = np.empty(0, "u1"), np.zeros(count, "<i8")
    return {
        "path.text": paths.ravel(), "path.ends": ends * len(name), "group.text": nothing, "group.ends": none,
        "class_name.text": nothing, "class_name.ends": none, "size": numbers + 1, "mtime_ns": numbers,
        "sha256": hashes, "row_ends": ends, "start": np.zeros(count), "end": np.full(count, np.nan),
        "repeated": np.zeros(count, bool),
    }  # fmt: skip


def repeated(place: Path, folder: Path, entry: dict, first: int) -> dict:
    """A segment of other videos with the features of an earlier one, which are linked: they take no room."""
    name, count = f"{first:016x}", entry["rows"]
    with open(place / "rows", "wb") as file:
        file.writelines(column_bytes(made_columns(first, count)))
    sha256 = {"features": entry["sha256"]["features"], "rows": sha256_of(place / "rows")}
    (place / "rows").rename(folder / rows_file(name))
    os.link(folder / features_file(entry["name"]), folder / features_file(name))
    return {**entry, "name": name, "sha256": sha256}


def made_index(folder: Path, rows: int, width: int) -> None:
    """In segments of at most LARGE rows, as an index that grew by additions has them."""
    if (folder / MANIFEST).is_file():
        return
    entries = []
    with written_index(folder) as place:
        for first in range(0, rows, LARGE):
            count = min(LARGE, rows - first)
            if first >= MADE_ROWS and count == LARGE:
                entries.append(repeated(place, folder, entries[first % MADE_ROWS // LARGE], first))
                continue
            columns = lambda first=first, count=count: made_columns(first, count)  # noqa: E731
            blocks = made_features(first, count, width)
            entries.append(
                write_arrays(place, folder, blocks, columns, num_rows=count, width=width)
            )
        write_manifest(place / MANIFEST, settings_of(width), "made", entries, [])
        commit(folder)


def query_of(number: int, width: int) -> np.ndarray:
    centre = np.random.default_rng(0).standard_normal((CENTRES, width), dtype=np.float32)[number]
    noise = np.random.default_rng([2, number]).standard_normal((1, width), dtype=np.float32)
    return centre + SPREAD * noise


def found_by(collection, query: np.ndarray, k: int = 10) -> list[str]:
    hits = _ranked([collection], query, [ROW], k, lambda _: (), False)
    return [hit.row.file.path for hit in hits]


def by_fp64(folder: Path, query: np.ndarray, k: int = 10) -> list[str]:
    vector, best = query[0].astype(float) / np.linalg.norm(query[0].astype(float)), []
    for segment in read_index(folder).segments:
        for start in range(0, len(segment.features), BLOCK):
            rows = segment.features[start : start + BLOCK].astype(float)
            scores = rows @ vector / np.linalg.norm(rows, axis=1)
            best += [
                (-scores[i], segment.file(start + int(i)).path) for i in np.argsort(-scores)[:k]
            ]
        best = sorted(best)[:k]
    return [path for _, path in best]


def measured(act) -> tuple[float, float]:
    started, worked = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - started, time.process_time() - worked


def resident_mib(name: str) -> int:
    """VmRSS, or VmHWM, the largest it was; getrusage tells what the parent had, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


def one_figure(what: str, folder: Path, width: int, repeats: int) -> dict:
    """In this process: the figure `what` of the index in a folder."""
    times, facts, before = [], {}, resident_mib("VmRSS")
    if what == "open":
        for _ in range(repeats):
            times.append(measured(lambda: read_index(folder)))
    elif what == "add":
        for number in range(repeats):
            file = VideoFile(path=f"/new/{time.time_ns()}", size=1, mtime_ns=1, sha256="0" * 64)

            def add(file=file, number=number):
                with Journal(folder, settings_of(width), "made") as journal:
                    assert journal.file(file.path) is None
                    journal.add([IndexRow(file=file)], query_of(number, width))
                    journal.finish([], [])

            times.append(measured(add))
        facts["segments"] = len(read_index(folder).segments)
    else:
        if what == "approximate" and not read_index(folder).approximate:
            built = measured(lambda: build_lists(folder, sample=100))
            facts["build_wall_seconds"], facts["build_processor_seconds"] = built
        if what == "approximate":
            told = read_index(folder).approximate
            facts |= {name: told[name] for name in ("recall", "num_probes", "sample")}
        collection = open_collection(str(folder), backend=what)
        found_by(collection, query_of(0, width))  # warms up
        for number in range(1, repeats + 1):
            query = query_of(number, width)
            times.append(measured(lambda query=query: found_by(collection, query)))
        facts["rows"] = collection.num_rows
    wall, processor = zip(*times, strict=True)
    return facts | {
        "wall_seconds": [round(one, 4) for one in wall],
        "processor_seconds": [round(one, 4) for one in processor],
        "median_wall": round(statistics.median(wall), 4),
        "median_processor": round(statistics.median(processor), 4),
        "largest_resident_mib": resident_mib("VmHWM"),
        "resident_before_mib": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--figures",
        nargs="+",
        default=["open", "torch", "add"],
        help="open, add, torch, faiss, approximate (the last two need faiss; approximate builds the lists)",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/index.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_figure(options.one, options.folder, options.width, options.repeats)))
        return
    rows = []
    if options.out.is_file():
        rows = json.loads(options.out.read_text())["rows"]
    for count in options.rows:
        folder = options.folder / str(count)
        started = time.perf_counter()
        made_index(folder, count, options.width)
        print(f"{count}: made in {time.perf_counter() - started:.0f} s", flush=True)
        if count <= 2_000_000:
            collection = open_collection(str(folder))
            for number in (1, 2):
                query = query_of(number, options.width)
                assert found_by(collection, query) == by_fp64(folder, query), "not the fp64 answer"
        for figure in options.figures:
            command = [sys.executable, __file__, str(folder), "--width", str(options.width), "--one", figure,
                       "--repeats", str(options.repeats)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {
                "index_rows": count,
                "width": options.width,
                "figure": figure,
                **json.loads(done.stdout),
            }
            row["load_average"] = round(os.getloadavg()[0], 1)
            print(row, flush=True)
            key = ("index_rows", "width", "figure")
            rows = [one for one in rows if any(one[name] != row[name] for name in key)] + [row]
            options.out.parent.mkdir(parents=True, exist_ok=True)
            written = {"environment": environment(), "rows": rows}
            options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
