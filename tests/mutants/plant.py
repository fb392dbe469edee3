"""Plant one mutant at a time and see whether the fast tests of its folder notice: the share caught, the list missed.

    make mutants                                          # all; writes benchmarks/results/mutants.json
    .venv/bin/python tests/mutants/plant.py train/ eval/probe.py --jobs 2

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
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from mutant_list import PACKAGE, Mutant, planted, read_mutants

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=no")
FAST = ("-m", "not slow and not gpu")
TIMEOUT = 900
"""Seconds of one run of pytest; a mutant that makes the tests hang is noticed, too."""
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


RUNNING: set[subprocess.Popen] = set()


def _end(process: subprocess.Popen) -> None:
    """End a process and all it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Copy:
    """A copy of the tree, in which tests run with one mutant planted or none."""

    def __init__(self, root: Path):
        self.root, self.passing = root, set()
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        (root / "sitecustomize.py").write_text(OWN_PACKAGE)
        found = self._python("-c", f"import {PACKAGE}; print({PACKAGE}.__file__)")[1].strip()
        if not Path(found).is_relative_to(root):
            raise RuntimeError(f"the copy in {root} would test {found}, not itself")

    def _python(self, *words: str) -> tuple[int | None, str]:
        """(exit code, output) of Python in the copy; None as code after TIMEOUT, when all of it is ended."""
        env = {**os.environ, **SETTINGS, "PYTHONPATH": str(self.root)}
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.root,
            env=env,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        RUNNING.add(process)
        try:
            output = process.communicate(timeout=TIMEOUT)[0]
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            _end(process)
            RUNNING.discard(process)

    def failing(self, *tests: str) -> str | None:
        """The first of these tests that fails, or what else went wrong; None when all pass."""
        code, output = self._python(*PYTEST, *FAST, *tests)
        if code in (0, 5):  # 5: no test was collected
            return None
        lines = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if code is None or not lines:
            return "out of time" if code is None else f"pytest ended with {code}: {output[-300:]}"
        return lines[0].split(" ", 1)[1].split(" - ")[0]

    def verdict(self, mutant: Mutant) -> str | None:
        """The test that notices the mutant; None when none does."""
        path = self.root / PACKAGE / mutant.file
        original = path.read_text(encoding="utf-8")
        for tests in suites_of(mutant.file, self.root):
            path.write_text(planted(mutant, original), encoding="utf-8")
            try:
                found = self.failing(*tests)
            finally:
                path.write_text(original, encoding="utf-8")
            if found is None:
                continue
            name = found.split("[")[0]
            if "::" in found and name not in self.passing and (own := self.failing(name)):
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
        "only", nargs="*", help="beginnings of files inside the package, e.g. train/"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    mutants = [m for m in read_mutants() if m.file.startswith(tuple(asked.only or [""]))]
    for mutant in mutants:
        planted(mutant, (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:

        def stop(*_) -> None:
            for process in list(RUNNING):
                _end(process)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(130)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(asked.jobs):
            copies.put(Copy(Path(folder).resolve() / str(number)))

        def judge(mutant: Mutant) -> str | None:
            copy, started = copies.get(), time.perf_counter()
            try:
                found = copy.verdict(mutant)
            finally:
                copies.put(copy)
            seconds = time.perf_counter() - started
            print(
                f"{'caught' if found else 'MISSED'} {seconds:4.0f} s  {mutant}  {found or ''}",
                flush=True,
            )
            return found

        with ThreadPoolExecutor(asked.jobs) as pool:
            verdicts = list(pool.map(judge, mutants))
    report = summary(mutants, verdicts)
    print(f"{report['caught']} of {report['planted']} caught ({report['share']:.1%}); missed:")
    print("\n".join(report["missed"]) or "none")
    if asked.out:
        asked.out.write_text(
            json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def summary(mutants: list[Mutant], verdicts: list[str | None]) -> dict:
    """What is kept of a run: the share caught, by folder too, what was missed, and which test caught what."""
    caught = [bool(verdict) for verdict in verdicts]
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    folders = [str(Path(mutant.file).parent) for mutant in mutants]
    right = Counter(folder for folder, found in zip(folders, caught, strict=True) if found)
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": git.stdout.strip(),
        "planted": len(mutants),
        "caught": sum(caught),
        "share": sum(caught) / max(1, len(mutants)),
        "by_folder": {f: f"{right[f]} of {n}" for f, n in sorted(Counter(folders).items())},
        "missed": [str(m) for m, found in zip(mutants, caught, strict=True) if not found],
        "caught_by": {str(m): v for m, v in zip(mutants, verdicts, strict=True) if v},
    }


if __name__ == "__main__":
    main()
