"""Exact top-1 of many queries in a large gallery: equal to fp64, then its time beside faiss-cpu's flat index.

    python benchmarks/retrieval.py --faiss_python PYTHON [--threads 2] [--out benchmarks/results/retrieval.json]

PYTHON is an interpreter with faiss-cpu (`python -m venv faiss && faiss/bin/pip install faiss-cpu`); faiss runs there,
in its own process, because two OpenMP runtimes in one process disturb each other. Both take turns on the same
vectors, so that a busy machine slows both. Two kinds of vectors: independent normal ones, and clustered ones
as features are. The machine may be shared: read the ratio of one run, not the seconds of two; processor time
(of all threads) hardly feels other tenants, wall-clock time does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FAISS_WORKER = """
import sys, time
import faiss, numpy as np
folder, threads = sys.argv[1], int(sys.argv[2])
faiss.omp_set_num_threads(threads)
for line in sys.stdin:
    kind, similarity = line.split()
    query, gallery = (np.load(f"{folder}/{kind}-{name}.npy") for name in ("query", "gallery"))
    started, worked = time.perf_counter(), time.process_time()
    if similarity == "cosine":
        faiss.normalize_L2(query)
        faiss.normalize_L2(gallery)
    index = (faiss.IndexFlatIP if similarity == "cosine" else faiss.IndexFlatL2)(query.shape[1])
    index.add(gallery)
    found = index.search(query, 1)[1][:, 0]
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    np.save(f"{folder}/found.npy", found)
    print(seconds, cpu, faiss.__version__, faiss.get_compile_options().replace(" ", "+"), flush=True)
"""


def vectors(kind: str, queries: int, gallery: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if kind == "normal":
        return tuple(rng.standard_normal((n, width), dtype=np.float32) for n in (queries, gallery))
    centres = rng.standard_normal((400, width), dtype=np.float32) + 2
    return tuple(
        centres[rng.integers(400, size=n)] + 0.5 * rng.standard_normal((n, width), dtype=np.float32)
        for n in (queries, gallery)
    )


def ours(query, gallery, similarity: str) -> tuple[np.ndarray, tuple[float, float]]:
    import torch

    from stretchysnake.eval.protocols.nearest import nearest

    started, worked = time.perf_counter(), time.process_time()
    found = nearest(torch.from_numpy(query), torch.from_numpy(gallery), similarity=similarity)
    times = time.perf_counter() - started, time.process_time() - worked
    return found[:, 0].numpy(), times


def exact(query: np.ndarray, gallery: np.ndarray, similarity: str) -> np.ndarray:
    """The fp64 answer, a block of queries at a time."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    if similarity == "cosine":
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    squares = (gallery**2).sum(1) if similarity == "l2" else 0.0
    factor = 2 if similarity == "l2" else 1
    return np.concatenate(
        [
            (factor * query[start : start + 500] @ gallery.T - squares).argmax(1)
            for start in range(0, len(query), 500)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faiss_python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/retrieval.json"))
    options = parser.parse_args()
    import torch

    from stretchysnake.cli.allocator import keep_freed_memory
    from stretchysnake.results.rows import environment

    keep_freed_memory()  # as the command line does
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        worker = subprocess.Popen(
            [options.faiss_python, "-c", FAISS_WORKER, folder, str(options.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
        )
        for kind in ("normal", "clustered"):
            query, gallery = vectors(kind, options.queries, options.gallery, options.width)
            np.save(f"{folder}/{kind}-query.npy", query)
            np.save(f"{folder}/{kind}-gallery.npy", gallery)
            for similarity in ("cosine", "l2"):
                truth = exact(query, gallery, similarity)
                times = {"ours": [], "faiss": []}
                for _ in range(options.repeats + 1):  # the first round warms up
                    found, used = ours(query, gallery, similarity)
                    times["ours"].append(used)
                    assert (found == truth).all(), "ours is not the fp64 answer"
                    worker.stdin.write(f"{kind} {similarity}\n")
                    worker.stdin.flush()
                    answer = worker.stdout.readline().split()
                    if not answer:
                        raise SystemExit(
                            f"no faiss in {options.faiss_python}: give --faiss_python, see --help"
                        )
                    times["faiss"].append((float(answer[0]), float(answer[1])))
                theirs = np.load(f"{folder}/found.npy")
                row = {"vectors": kind, "similarity": similarity}
                for place, clock in enumerate(("wall", "processor")):
                    a, b = ([pair[place] for pair in times[who][1:]] for who in ("ours", "faiss"))
                    row |= {
                        f"ours_{clock}_seconds": [round(x, 3) for x in a],
                        f"faiss_{clock}_seconds": [round(x, 3) for x in b],
                        f"{clock}_ratio_of_medians": round(
                            statistics.median(a) / statistics.median(b), 3
                        ),
                    }
                row |= {
                    "ours_unlike_fp64": 0,
                    "faiss_unlike_fp64": int((theirs != truth).sum()),
                }
                rows.append(row)
                print(row, flush=True)
                written = {
                    "environment": environment(),
                    "faiss": " ".join(answer[2:]),
                    "threads": options.threads,
                    "load_average": os.getloadavg(),
                    "shape": [options.queries, options.gallery, options.width],
                    "rows": rows,
                }
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(written, indent=1) + "\n")
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
