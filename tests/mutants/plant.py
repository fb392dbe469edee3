"""Plant one mutant at a time and see whether the fast tests of its folder notice: the share caught, the list missed.

    make mutants                                          # all; writes benchmarks/results/mutants.json
    .venv/bin/python tests/mutants/plant.py train/ eval/protocols/probe.py --jobs 2

Works in copies of the tree in the system's temporary folder, so that a killed run leaves the tree as it was. First the
mirrored test files run (train/step.py: tests/train/test_step.py, test_step_*.py), then the rest of the folder. A
failing test counts only when it passes without the mutant.
"""

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from mutant_list import PACKAGE, Mutant, planted, read_mutants

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=no", "-m", "not slow and not gpu")
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # many small tensors: two threads that wait for one another take five times as long
    "OMP_WAIT_POLICY": "passive",
    "PYTHONDONTWRITEBYTECODE": "1",  # a mutant as long as the original, in the same second, would be taken for it
}
LEFT_OUT = (".git", ".venv", ".*_cache", "__pycache__", "build", "dist")
# An editable install finds the package by a hook that goes before every path: the copy would test the original.
OWN_PACKAGE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(type(f), "__module__", "")]
"""


class Copy:
    """A copy of the tree, and a process in it that runs tests with one mutant planted or none."""

    def __init__(self, folder: Path):
        self.root, self.passing = folder / "tree", set()
        self.words = [*PYTEST, f"--basetemp={folder / 'basetemp'}"]
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        (self.root / "sitecustomize.py").write_text(OWN_PACKAGE)
        env = {**os.environ, **SETTINGS, "PYTHONPATH": str(self.root)}
        where = f"import {PACKAGE}; print({PACKAGE}.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", where],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        if not Path(done.stdout.strip()).is_relative_to(self.root):
            raise RuntimeError(f"the copy in {folder} would test {done.stdout.strip()}, not itself")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked_pytest.py"))],
            cwd=self.root,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def failing(self, *tests: str) -> str | None:
        """The first of these tests that fails, or what else went wrong; None when all pass."""
        self.process.stdin.write(json.dumps([*self.words, *tests]) + "\n")
        self.process.stdin.flush()
        code, output = json.loads(self.process.stdout.readline())
        if code in (0, 4, 5):  # 4: there is no such test any more; 5: none of them is a fast one
            return None
        lines = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if code is None or not lines:
            return "out of time" if code is None else f"pytest ended with {code}: {output[-300:]}"
        return lines[0].split(" ", 1)[1].split(" - ")[0]

    def verdict(self, mutant: Mutant, known: str | None) -> str | None:
        """The test that notices the mutant; None when none does. `known` is one that noticed it before."""
        path = self.root / PACKAGE / mutant.file
        original = path.read_text(encoding="utf-8")
        for tests in [[known] if known else [], *suites_of(mutant.file, self.root)]:
            if not tests:
                continue
            path.write_text(planted(mutant, original), encoding="utf-8")
            try:
                found = self.failing(*tests)
            finally:
                path.write_text(original, encoding="utf-8")
            if found is None:
                continue
            name = found.split("[")[0]
            if found.startswith("tests/") and name not in self.passing:
                if own := self.failing(name):
                    raise RuntimeError(f"{own} fails without any mutant; mend it first")
                self.passing.add(name)
            return found
        return None


def suites_of(file: str, root: Path = ROOT) -> list[list[str]]:
    """The words for pytest: the mirrored test files (test_NAME.py, test_NAME_*.py), then the rest of the folder."""
    folder, stem = root / "tests" / Path(file).parent, f"test_{Path(file).stem}"
    tests = sorted(folder.glob("test_*.py" if folder == root / "tests" else "**/test_*.py"))
    mirrored = [path for path in tests if path.stem == stem or path.name.startswith(f"{stem}_")]
    others = [path for path in tests if path not in mirrored]
    return [[str(path.relative_to(root)) for path in part] for part in (mirrored, others) if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="*", help="beginnings of files inside the package, e.g. train/; none: all"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file of verdicts, brought up to date after every mutant"
    )
    parser.add_argument(
        "--missed", action="store_true", help="only those that --out has no noticing test for"
    )
    asked = parser.parse_args()
    mutants = read_mutants()
    chosen = [m for m in mutants if m.file.startswith(tuple(asked.only or [""]))]
    verdicts: dict[str, str | None] = {}
    if asked.out and asked.out.is_file():
        verdicts = json.loads(asked.out.read_text(encoding="utf-8"))["noticed_by"]
    if asked.missed:
        chosen = [mutant for mutant in chosen if not verdicts.get(str(mutant))]
    for mutant in chosen:
        planted(mutant, (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: the copies go
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(asked.jobs):
            copies.put(Copy(Path(folder).resolve() / str(number)))

        def judge(mutant: Mutant) -> tuple[Mutant, str | None, float]:
            copy, started = copies.get(), time.perf_counter()
            try:
                found = copy.verdict(mutant, verdicts.get(str(mutant)))
            finally:
                copies.put(copy)
            return mutant, found, time.perf_counter() - started

        with ThreadPoolExecutor(asked.jobs) as pool:
            try:
                for mutant, found, seconds in pool.map(judge, chosen):
                    word = "caught" if found else "MISSED"
                    print(f"{word} {seconds:4.0f} s  {mutant}  {found or ''}", flush=True)
                    verdicts[str(mutant)] = found
                    report = summary(mutants, verdicts)
                    if asked.out:
                        text = json.dumps(report, indent=1, ensure_ascii=False)
                        asked.out.write_text(text + "\n", encoding="utf-8")
            except KeyboardInterrupt:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)  # while the copies are removed
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(130)  # what runs in the copies sees that, and ends
    right = sum(bool(verdicts[str(mutant)]) for mutant in chosen)
    print(f"{right} of {len(chosen)} noticed ({right / max(1, len(chosen)):.1%}); missed:")
    print(*(mutant for mutant in chosen if not verdicts[str(mutant)]), sep="\n")


def summary(mutants: list[Mutant], verdicts: dict[str, str | None]) -> dict:
    """What is kept: the share of the judged mutants that a test noticed, what was missed, which test noticed what."""
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    judged = {str(m): verdicts[str(m)] for m in mutants if str(m) in verdicts}
    folders = Counter(str(Path(name.split(":")[0]).parent) for name in judged)
    right = Counter(str(Path(name.split(":")[0]).parent) for name, test in judged.items() if test)
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": git.stdout.strip(),
        "mutants": len(mutants),
        "judged": len(judged),
        "noticed": sum(right.values()),
        "share": round(sum(right.values()) / max(1, len(judged)), 4),
        "by_folder": {folder: f"{right[folder]} of {n}" for folder, n in sorted(folders.items())},
        "missed": [name for name, test in judged.items() if not test],
        "noticed_by": judged,
    }


if __name__ == "__main__":
    main()
